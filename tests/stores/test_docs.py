"""The pages about workspaces are true: each of their blocks runs, in order, against the emulated one."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest

from mlflow_azure_backend.emulator import EmulatorServer

DOCS = Path(__file__).parent.parent.parent / "docs"
PAGES = ("track_local_runs", "track_remote_runs", "train_with_projects", "view_runs", "manage_models")


def blocks(page: str) -> list[tuple[str, str]]:
    """Language and text of a page's blocks."""
    return re.findall(r"(?ms)^```(.+?)\n(.*?)^```$", (DOCS / f"{page}.md").read_text("utf-8"))


def serves(command: str, port: int) -> None:
    """Ask what the command serves: the user interface for experiments, a model for a prediction."""
    body: dict[str, object]
    if " ui " in command:
        address, body, wanted = "ajax-api/2.0/mlflow/experiments/search", {"max_results": 100}, "viewing"
    else:
        address, body, wanted = "invocations", {"inputs": [[0.0] * 10]}, "predictions"
    request = Request(
        f"http://127.0.0.1:{port}/{address}", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urlopen(request, timeout=60) as answer:  # noqa: S310 - an address of ours
        assert wanted in answer.read().decode()


@contextmanager
def server(command: str) -> Iterator[int]:
    """A server's command as the page has it, on a free port; ended with all that it started."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    more = ["--port", str(port), *(["--workers", "1"] if " ui " in command else [])]
    process = subprocess.Popen([*command.split(), *more], start_new_session=True)
    try:
        deadline = time.monotonic() + 240
        while True:
            try:
                urlopen(f"http://127.0.0.1:{port}/{'health' if ' ui ' in command else 'ping'}", timeout=10).close()
                break
            except (URLError, OSError):
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.2)
        yield port
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def run_python(text: str, names: dict[str, object]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(compile(text, "block", "exec"), names)  # noqa: S102 - that is the test


@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", PAGES)
def test_each_block_runs(workspace: EmulatorServer, monkeypatch: pytest.MonkeyPatch, page: str) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    names: dict[str, object] = {"__name__": page}
    do: dict[str, Callable[[str], object]] = {
        "python": lambda text: run_python(text, names),
        "sh": lambda text: subprocess.run(["bash", "-euc", text], check=True),
    }
    found = blocks(page)
    assert found
    for language, text in found:
        if language == "sh server":
            with server(text.strip()) as port:
                serves(text, port)
        else:
            do[language](text)


def test_the_migration_begins_with_its_step_0() -> None:
    text = (DOCS / "migrating.md").read_text("utf-8")
    assert text.index("pip uninstall azureml-mlflow") < text.index("| before | now |")
