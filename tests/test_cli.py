"""The command line as users meet it: real processes, real mistakes, one line each, nothing left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

Write = Callable[[Mapping[str, str]], Path]
OURS = str(Path(sys.executable).parent / "mlflow-azure")
THEIRS = str(Path(sys.executable).parent / "mlflow")


def ask(*arguments: str, program: str = OURS, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command in this folder, with this environment and some more."""
    return subprocess.run(
        [program, *arguments], capture_output=True, text=True, env={**os.environ, **variables}, timeout=120
    )


def assert_refused(done: subprocess.CompletedProcess[str], home: Path, *words: str) -> None:
    """One line with these words and a next step, exit code not 0, no traceback, nothing left behind."""
    assert done.returncode != 0
    assert "Traceback" not in done.stderr + done.stdout
    said = [line for line in done.stderr.splitlines() if line.startswith(("✗", "+", "Error", "x"))]
    assert len(said) == 1, done.stderr
    for word in words:
        assert word in said[0]
    assert not [path for path in home.rglob("*") if path.is_file()]


def test_a_project_runs_and_its_exit_code_is_ours(store: str, write_project: Write) -> None:
    folder = write_project({"MLproject": "entry_points: {main: {command: 'echo hello; exit 3'}}"})
    done = ask("run", str(folder), "--experiment-name", "contract", "--run-name", "mine", "--json")
    assert done.returncode == 3
    assert done.stdout.startswith("hello\n")
    facts = json.loads(done.stdout.removeprefix("hello\n"))
    assert (facts["status"], facts["exit_code"], facts["run_name"]) == ("FAILED", 3, "mine")
    listed = json.loads(ask("list", "--json").stdout)
    assert [run["run_id"] for run in listed] == [facts["run_id"]]
    assert ask("status", facts["run_id"][:8], "--json").stdout == json.dumps(facts, ensure_ascii=False, indent=2) + "\n"
    assert ask("logs", facts["run_id"][:8]).stdout == "hello\n"
    assert ask("logs", facts["run_id"][:8], "--tail", "0").stdout == ""
    attached = ask("attach", facts["run_id"])
    assert (attached.returncode, attached.stdout) == (3, "hello\n")


def test_mlflow_run_streams_and_fails_with_the_job(store: str, write_project: Write) -> None:
    folder = write_project({"MLproject": "entry_points: {main: {command: 'echo hello; exit 3'}}"})
    done = ask(
        *("run", str(folder), "--backend", "azure", "--experiment-name", "contract", "--run-name", "named"),
        program=THEIRS,
    )
    assert done.returncode == 1
    assert done.stdout == "hello\n"
    assert "✗ failed" in done.stderr
    assert "Traceback" not in done.stderr
    (run,) = json.loads(ask("list", "--json").stdout)
    assert (run["run_name"], run["exit_code"]) == ("named", 3)


def test_plan_does_nothing(store: str, home: Path, write_project: Write) -> None:
    folder = write_project(
        {
            "MLproject": "entry_points:\n  main:\n    parameters: {x: {type: float, default: 1}}\n    command: echo {x}\n",
            ".gitignore": "data/\n",
            "data/a.csv": "1",
        }
    )
    done = ask("plan", str(folder), "-P", "x=2")
    assert done.returncode == 0
    assert "data/ (.gitignore:1)" in done.stderr
    facts = json.loads(ask("plan", str(folder), "-P", "x=2", "--json").stdout)
    assert facts["command"] == "echo 2"
    assert facts["snapshot"]["left_out"] == [{"path": "data/", "rule": ".gitignore:1"}]
    assert not home.exists()
    assert sorted(path.name for path in folder.iterdir()) == [".gitignore", "MLproject", "data"]


MISTAKES = {
    "unknown key": (["-c", '{"compuet": "local"}'], ["compuet", "compute"]),
    "wrong type": (["-c", '{"timeout": []}'], ["timeout", "2h"]),
    "key of another target": (["-c", '{"distribution": {"type": "mpi"}}'], ["distribution", "cluster"]),
    "unknown profile": (["-c", '{"profile": "gpu"}'], ["profile", "gpu"]),
    "no json": (["-c", "{compute}"], ["JSON"]),
    "no config file": (["-c", "nothing.json"], ["nothing.json"]),
    "entry point": (["-e", "mian"], ["mian", "main"]),
    "missing parameter": ([], ["data"]),
    "number": (["-P", "data=x", "-P", "rate=fast"], ["rate", "fast"]),
    "path": (["-P", "data=x", "-P", "file=nothing.csv"], ["file", "nothing.csv"]),
    "uri": (["-P", "data=x", "-P", "link=nothing"], ["link", "nothing"]),
    "placeholder": (["-e", "typo"], ["{daat}", "MLproject:15"]),
    "budget": (["-P", "data=x", "-c", '{"snapshot": {"max_size": 10}}'], ["10", "big.bin"]),
    "secret": (["-P", "data=x", "-c", '{"secrets": {"TOKEN": "env:NOT_SET_ANYWHERE"}}'], ["NOT_SET_ANYWHERE"]),
    "docker argument": (["-P", "data=x", "-A", "gpus=all"], ["docker"]),
    "no environment for a cluster": (["-P", "data=x", "--compute", "gpu-cluster"], ["no environment", "docker_env"]),
}
PROJECT = {
    "MLproject": """name: mistakes
entry_points:
  main:
    parameters:
      data: {type: string}
      rate: {type: float, default: 1}
      file: {type: path, default: MLproject}
      link: {type: uri, default: "s3://x/y"}
    command: "echo {data} {rate} {file} {link}"
  other:
    command: "true"
  typo:
    parameters:
      data: {type: string}
    command: >-
      echo {daat}
""",
    "big.bin": "x" * 5000,
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(store: str, home: Path, write_project: Write, mistake: str) -> None:
    arguments, words = MISTAKES[mistake]
    assert_refused(ask("run", str(write_project(PROJECT)), *arguments), home, *words)


def test_a_tracking_uri_that_names_no_workspace(
    store: str, home: Path, write_project: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "azureml://example.com/x")
    assert_refused(ask("run", str(write_project(PROJECT)), "-P", "data=x"), home, "MLFLOW_TRACKING_URI", "looks like")


def test_a_run_id_that_no_job_can_have_is_asked_of_nobody(
    store: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SUBSCRIPTION", "RESOURCEGROUP", "WORKSPACE_NAME"):
        monkeypatch.setenv(f"AZUREML_ARM_{name}", "x")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # whoever asked would wait for it
    for run_id in ("../computes/x", "a/b", "a?b"):
        assert_refused(ask("status", run_id), home, run_id, "mlflow-azure list")


def test_a_folder_that_is_not_there(store: str, home: Path, write_project: Write) -> None:
    folder = write_project(PROJECT)
    assert_refused(ask("run", str(folder / "nothing")), home, "nothing")


def test_an_environment_file_that_is_not_there(store: str, home: Path, write_project: Write) -> None:
    folder = write_project({"MLproject": "python_env: pyhton_env.yaml\n", "python_env.yaml": "dependencies: []\n"})
    assert_refused(ask("run", str(folder), "-e", "x.py"), home, "pyhton_env.yaml", "python_env.yaml")


def test_an_mlproject_that_is_no_yaml(store: str, home: Path, write_project: Write) -> None:
    assert_refused(ask("run", str(write_project({"MLproject": "entry_points: [}"}))), home, "MLproject:1")


def test_a_python_that_is_not_here(store: str, home: Path, write_project: Write) -> None:
    folder = write_project(
        {
            "MLproject": "python_env: python_env.yaml\nentry_points: {main: {command: 'true'}}\n",
            "python_env.yaml": "python: '3.5'\ndependencies: [six]\n",
        }
    )
    assert_refused(ask("run", str(folder)), home, "3.5", "uv python install")


def test_a_tracking_server_that_is_away_is_found_before_anything_starts(home: Path, write_project: Write) -> None:
    folder = write_project({"MLproject": "entry_points: {main: {command: 'touch started'}}"})
    done = ask("run", str(folder), MLFLOW_TRACKING_URI="http://user:hunter2@127.0.0.1:9")
    assert_refused(done, home, "127.0.0.1:9", "MLFLOW_TRACKING_URI")
    assert "hunter2" not in done.stderr
    assert not (folder / "started").exists()


def test_a_full_disk_is_named(store: str, small_disk: Path, write_project: Write) -> None:
    (small_disk / "ballast").write_bytes(bytes(60_000))
    folder = write_project({"MLproject": "entry_points: {main: {command: 'touch started'}}"})
    done = ask("run", str(folder), "--experiment-name", "contract", MLFLOW_AZURE_HOME=str(small_disk / "home"))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "no space left" in done.stderr.lower()
    assert not (folder / "started").exists()


def test_a_read_only_project_runs(store: str, tmp_path: Path, write_project: Write) -> None:
    folder = write_project({"MLproject": "entry_points: {main: {command: 'echo fine'}}"})
    subprocess.run(["mount", "--bind", str(folder), str(folder)], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=True)
        done = ask("run", str(folder), "--experiment-name", "contract")
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
    assert (done.returncode, done.stdout) == (0, "fine\n")


@pytest.mark.parametrize("command", ["status", "logs", "attach", "cancel"])
def test_a_run_that_is_not_known(home: Path, command: str) -> None:
    assert_refused(ask(command, "4f2a9c1e"), home, "4f2a9c1e", "mlflow-azure list")


def test_sync_has_nothing_to_do(home: Path) -> None:
    done = ask("sync")
    assert done.returncode == 0
    assert "written down" in done.stderr


def test_doctor_finds_our_plugin(store: str) -> None:
    done = ask("doctor", "--json")
    findings = {finding["name"]: finding for finding in json.loads(done.stdout)}
    assert findings["plugin"]["good"], findings
    assert findings["tracking"]["good"], findings
    assert findings["environments"]["found"] == f"0 environments built in {os.environ['MLFLOW_AZURE_CACHE']}"
    assert done.returncode == 0


def test_doctor_names_a_rival_and_the_line_that_mends_it(store: str, tmp_path: Path) -> None:
    rival = tmp_path / "site" / "azureml_mlflow-1.62.0.dist-info"
    rival.mkdir(parents=True)
    (rival / "METADATA").write_text("Metadata-Version: 2.1\nName: azureml-mlflow\nVersion: 1.62.0\n")
    (rival / "entry_points.txt").write_text("[mlflow.project_backend]\nazureml = azureml.mlflow:Backend\n")
    done = ask("doctor", PYTHONPATH=str(rival.parent))
    assert done.returncode == 1
    assert "azureml-mlflow" in done.stderr
    assert "fix: pip uninstall azureml-mlflow" in done.stderr


def test_every_command_has_help_with_an_example() -> None:
    commands = [line.split()[0] for line in ask("--help").stdout.partition("Commands:\n")[2].splitlines() if line]
    assert {"run", "plan", "list", "status", "logs", "attach", "cancel", "sync", "doctor"} <= set(commands)
    for command in commands:
        assert f"Example: mlflow-azure {command}" in ask(command, "--help").stdout
