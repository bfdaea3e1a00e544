"""The ``--live`` switch and what the contract tests compare with: neither may let a difference pass in silence."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from mlflow_azure_backend.emulator import EmulatorServer
from tests.emulator.recorded import FOLDER, differences, recording
from tests.emulator.workspaces import VARIABLES, live_path

ROOT = Path(__file__).parents[2]
CONTRACT = f"{ROOT}/tests/emulator/test_contract.py"


def pytest_live(folder: Path, environment: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """A live run from a folder, above which nobody leaves a ``config.json``."""
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--live", *arguments]
    argv += ["--rootdir", str(ROOT), "--config-file", str(ROOT / "pyproject.toml")]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "AZURE"))}
    variables = {**kept, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(argv, cwd=folder, env=variables, capture_output=True, text=True)


def test_a_live_run_without_a_workspace_is_refused_in_one_line(tmp_path: Path) -> None:
    done = pytest_live(tmp_path, {}, CONTRACT)
    words = f"ERROR: --live needs a workspace: its config.json in this folder or above, or {', '.join(VARIABLES)}"
    assert (done.returncode, words in done.stdout + done.stderr) == (4, True), done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_a_live_run_asks_the_workspace_of_the_variables_and_runs_nothing_else(
    emulator: EmulatorServer, tmp_path: Path
) -> None:
    """The real workspace's place is taken by an emulated one, reached as clients reach it: by the environment alone."""
    environment = emulator.environment()
    everything = pytest_live(
        tmp_path, environment, "--collect-only", CONTRACT, f"{ROOT}/tests/emulator/test_specification.py"
    )
    collected = [line for line in everything.stdout.splitlines() if "::" in line]
    assert len(collected) >= 11
    assert all(line.endswith("[live]") for line in collected), everything.stdout
    done = pytest_live(tmp_path, environment, CONTRACT, "-k", "workspace or discovery or not_there")
    assert (done.returncode, "3 passed" in done.stdout) == (0, True), done.stdout + done.stderr


def test_a_workspace_is_found_by_variables_or_the_nearest_config_file(tmp_path: Path) -> None:
    config = {"subscription_id": "s", "resource_group": "g", "workspace_name": "w"}
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (tmp_path / "config.json").write_text(json.dumps(config))
    path = "/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/w"
    assert live_path({}, inner) == path
    variables = dict(zip(VARIABLES, ("s", "g", "w2"), strict=True))
    assert live_path(variables, inner) == f"{path}2"
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(LookupError, match=r"is no workspace's config\.json: it must have subscription_id"):
        live_path({}, inner)


def test_a_difference_from_a_recording_is_found() -> None:
    recorded = recording("command_job_create")["response"]
    assert differences(recorded, recorded) == []
    answered = copy.deepcopy(recorded)
    del answered["properties"]["outputs"]["test1"]["mode"]
    answered["properties"]["resources"]["shmSize"] = "1g"
    answered["properties"]["isArchived"] = "no"
    answered["properties"]["tags"] = []
    answered["id"] = "/subscriptions/x/resourceGroups/y/providers/Z/workspaces/w/runs/name"
    answered["properties"]["newer"] = True
    assert sorted(differences(recorded, answered)) == [
        "id: '{workspace}/runs/{name}' where '{workspace}/jobs/{name}' was recorded",
        "properties.isArchived: 'no' where False was recorded",
        "properties.outputs.test1.mode: missing; recorded as 'ReadWriteMount'",
        "properties.resources.shmSize: '1g' where '2g' was recorded",
        "properties.tags: [] is no object",
    ]


def test_every_recording_says_where_it_is_from_and_has_no_secret() -> None:
    for file in FOLDER.glob("*.json"):
        text = file.read_text("utf-8")
        assert {"repo", "origin"} & json.loads(text)["_source"].keys(), file.name
        assert text.count("sig=") == text.count("sig=<masked>"), file.name
