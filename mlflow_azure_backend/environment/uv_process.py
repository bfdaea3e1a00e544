"""uv as a process: found, given an environment that nothing of the user's shell redirects, its errors in one line."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mlflow_azure_backend.environment.cache import full
from mlflow_azure_backend.environment.indexes import redact
from mlflow_azure_backend.errors import EnvironmentUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# Settings that would make uv act on another Python, project or environment than ours, or undo what a lock promises.
# All others are the user's: indexes, credentials, certificates, proxies, cache, concurrency, UV_COMPILE_BYTECODE.
_REDIRECTING: Final = frozenset(
    {
        *("CONDA_DEFAULT_ENV", "CONDA_PREFIX", "PYTHONHOME", "PYTHONPATH", "RUST_LOG", "VIRTUAL_ENV"),
        *("UV_BREAK_SYSTEM_PACKAGES", "UV_CUSTOM_COMPILE_COMMAND", "UV_NO_VERIFY_HASHES", "UV_REQUIRE_HASHES"),
        *("UV_MANAGED_PYTHON", "UV_NO_MANAGED_PYTHON", "UV_PYTHON", "UV_PYTHON_PREFERENCE", "UV_SYSTEM_PYTHON"),
        *("UV_PROJECT_ENVIRONMENT", "UV_WORKING_DIR", "UV_WORKING_DIRECTORY"),
        *("UV_VENV_CLEAR", "UV_VENV_RELOCATABLE", "UV_VENV_SEED"),
    }
)
_OURS: Final = {
    # An absolute folder without a project: a uv.toml or pyproject.toml around the current folder must not count.
    "UV_PROJECT": "/",
    "UV_NO_PROGRESS": "1",
    "UV_PYTHON_DOWNLOADS": "never",
    "NO_COLOR": "1",
}
Origins = Mapping[str, tuple[tuple[str, str], ...]]
"""The requirements of each canonical package name: ``file:line`` and what is written there."""

_LONGEST_REASON: Final = 600
_MOST_LINES: Final = 4
_CLASH: Final = "no versions fit together"


def uv_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment that uv gets: the user's without what would redirect it."""
    return {**{name: value for name, value in environ.items() if name not in _REDIRECTING}, **_OURS}


def run_uv(
    arguments: Sequence[str], *, environ: Mapping[str, str], text: str = "", keep_open: Iterable[int] = ()
) -> subprocess.CompletedProcess[str]:
    """Run uv to its end; it dies with an exception of ours, Ctrl-C included.

    Args:
        arguments: After ``uv``. They are visible to every user of the machine: no credentials here.
        environ: What ``uv_environment`` is made of.
        text: Its standard input.
        keep_open: Descriptors that it inherits, such as a lock that must outlast us while it writes.

    Raises:
        EnvironmentUnavailable: uv is not installed or cannot be started.
    """
    command = [_find_uv(), *arguments, "--quiet"]
    try:
        return subprocess.run(
            command,
            input=text,
            env=uv_environment(environ),
            pass_fds=tuple(keep_open),
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
    except OSError as error:
        raise EnvironmentUnavailable(f"uv cannot be started ({error.strerror})", where=command[0]) from None


def _find_uv() -> str:
    # Here, because a warm environment needs no uv.
    try:
        import uv

        return uv.find_uv_bin()
    except (ImportError, FileNotFoundError):
        raise EnvironmentUnavailable("uv is not installed", next_step="run `pip install uv`") from None


def uv_failure(stderr: str, *, origins: Origins, folder: Path) -> EnvironmentUnavailable:
    """Say in one line why uv failed.

    Args:
        stderr: What it wrote. Credentials in addresses are taken out.
        origins: The requirements by name, to name those that a reason speaks of.
        folder: What uv was writing to, for a full disk.
    """
    body, hint = _sentences(redact(stderr) or "uv failed and did not say why")
    if "No space left on device" in body:
        written = re.findall(r" to `?(/[^`:]+)", body)
        return full(Path(written[-1].strip()) if written else folder)
    named = _lines_named(body, origins)
    where = ", ".join(dict.fromkeys(origin for origin, _ in named)) or None
    if package := _first(r"Hash mismatch for `([^`]+)`", body):
        what = f"{package} is not the file that was locked (hash mismatch)"
        return EnvironmentUnavailable(what, where=where, next_step="resolve again with `mlflow-azure lock --upgrade`")
    if address := _first(r"Failed to fetch:?\s+`?([^`\s]+?)`?:?(?:\s|$)", body):
        reason = body.rpartition(": ")[2].partition(" for url (")[0]
        what = f"the package index cannot be reached: {address}: {reason}"
        step = "check the network, and the index settings of pip or uv"
        return EnvironmentUnavailable(what, next_step=step)
    if refusing := _first(r"An index(?: URL)? \((\S+)\) (?:could not be queried due to|returned a 403)", hint):
        step = "give them in ~/.netrc, or in the index settings of pip or uv"
        return EnvironmentUnavailable(f"the package index {refusing} refuses us: no valid credentials", next_step=step)
    if "network was disabled" in hint:
        step = "unset UV_OFFLINE, or ask only for what uv's cache has"
        return EnvironmentUnavailable(f"uv may not use the network: {body}", where=where, next_step=step)
    if unknown := _first(r"[Bb]ecause (\S+) was not found in the (?:package registry|provided package)", body):
        what = f"no package named {unknown} is on the package index"
        step = "check its spelling, and the index settings of pip or uv with their credentials"
        return EnvironmentUnavailable(what, where=where, next_step=step)
    if len(named) > 1:
        body = body.replace(_CLASH, f"{_CLASH} for {' and '.join(text for _, text in named)}", 1)
    what = shortened(f"{body}{f' ({hint})' if hint else ''}")
    if "Failed to build" in body:
        step = "take a version that has a wheel, or install what building it needs"
        return EnvironmentUnavailable(what, where=where, next_step=step)
    return EnvironmentUnavailable(what, where=where)


def shortened(reason: str) -> str:
    """A tool's reason, of which the first sentences say enough."""
    return reason if len(reason) <= _LONGEST_REASON else f"{reason[:_LONGEST_REASON].rpartition(' ')[0]} …"


def _sentences(stderr: str) -> tuple[str, str]:
    """The message of uv and its first hint, each on one line, without headings and drawing characters."""
    text = ""
    for line in stderr.splitlines():
        heading = re.match(r"\s*(error:|cause:|Caused by:|\u00d7|╰─▶|├─▶)\s*(.*)", line)
        plain = heading[2] if heading else line.strip(" │")
        joint = ": " if heading and text else " "
        text = f"{text.rstrip(':')}{joint}{plain}" if plain else text
    body, _, hint = text.partition("hint:")
    body = body.strip().removesuffix(".").removesuffix(", we can conclude that your requirements are unsatisfiable")
    body = body.replace("No solution found when resolving dependencies: Because", f"{_CLASH}: because")
    return body, hint.partition("hint:")[0].strip().removesuffix(".")


def _lines_named(text: str, origins: Origins) -> list[tuple[str, str]]:
    words = (re.sub(r"[-_.]+", "-", word).lower() for word in re.findall(r"[A-Za-z0-9][\w.-]*", text))
    return list(dict.fromkeys(line for word in words for line in origins.get(word, ())))[:_MOST_LINES]


def _first(pattern: str, text: str) -> str | None:
    match = re.search(pattern, text)
    return match[1] if match else None
