"""What CI systems read: outputs in a file, annotations, and the job's log where it can be folded."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import mlflow
import pytest

from mlflow_azure_backend.ci import annotation, error_line, write_outputs

Write = Callable[[Mapping[str, str]], Path]
BIN = Path(sys.executable).parent
FAILING = {
    "MLproject": "entry_points: {main: {command: python train.py}}\n",
    "train.py": "print('begins')\nimport a_package_that_nobody_has\n",
}


def ask(*command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "GITHUB_ACTIONS": "true", **variables}
    return subprocess.run(
        [str(BIN / command[0]), *command[1:]], capture_output=True, text=True, env=environment, timeout=120
    )


@pytest.mark.parametrize("program", ["mlflow-azure run {}", "mlflow run {} --backend azureml"])
def test_a_failure_is_an_annotation_and_three_outputs(
    store: str, write_project: Write, tmp_path: Path, program: str
) -> None:
    folder, outputs = write_project(FAILING), tmp_path / "outputs"
    outputs.write_text("before=1\n")
    words = [word.format(folder) for word in program.split()]
    done = ask(*words, "--experiment-name", "contract", GITHUB_OUTPUT=str(outputs), GITHUB_WORKSPACE=str(folder.parent))
    assert done.returncode == 1
    before, run_id, status, exit_code = outputs.read_text().splitlines()
    assert before == "before=1"
    run = mlflow.get_run(run_id.removeprefix("run_id="))
    assert run.info.status == "FAILED"
    assert (status, exit_code) == ("status=FAILED", "exit_code=1")
    lines = done.stdout.splitlines()
    log = lines[lines.index("::group::log of the job") + 1 : lines.index("::endgroup::")]
    assert log[0] == "begins"
    (said,) = [line for line in lines if line.startswith("::error")]
    place = f"{folder.name}/train.py".replace(",", "%2C").replace(":", "%3A")
    assert said.startswith(f"::error file={place},line=2::")
    assert "a_package_that_nobody_has" in said


def test_a_success_is_three_outputs_and_no_annotation(store: str, write_project: Write, tmp_path: Path) -> None:
    folder = write_project({"MLproject": "entry_points: {main: {command: echo fine}}\n"})
    outputs = tmp_path / "outputs"
    done = ask("mlflow-azure", "run", str(folder), "--experiment-name", "contract", GITHUB_OUTPUT=str(outputs))
    assert done.returncode == 0
    assert outputs.read_text().splitlines()[1:] == ["status=FINISHED", "exit_code=0"]
    assert done.stdout == "::group::log of the job\nfine\n::endgroup::\n"


def test_a_run_that_is_left_alone_is_in_the_outputs(store: str, write_project: Write, tmp_path: Path) -> None:
    folder = write_project({"MLproject": "entry_points: {main: {command: 'true'}}\n"})
    outputs = tmp_path / "outputs"
    arguments = ["run", str(folder), "--experiment-name", "contract", "--detach"]
    assert ask("mlflow-azure", *arguments, GITHUB_OUTPUT=str(outputs)).returncode == 0
    run_id, status, exit_code = outputs.read_text().splitlines()
    assert (status, exit_code) == ("status=RUNNING", "exit_code=")
    assert ask("mlflow-azure", "attach", run_id.removeprefix("run_id=")).returncode == 0


@pytest.mark.parametrize("program", ["mlflow-azure run {}", "mlflow run {} --backend azureml"])
def test_a_mistake_is_an_annotation(store: str, write_project: Write, program: str) -> None:
    folder = write_project({"MLproject": "entry_points: {main: {command: python tarin.py}}\n", "train.py": ""})
    done = ask(*[word.format(folder) for word in program.split()])
    assert done.returncode == 1
    (said,) = [line for line in done.stdout.splitlines() if line.startswith("::error")]
    assert "tarin.py" in said


def test_the_outputs_file_may_be_unusable(store: str, write_project: Write, tmp_path: Path) -> None:
    folder = write_project({"MLproject": "entry_points: {main: {command: 'true'}}\n"})
    done = ask("mlflow-azure", "run", str(folder), "--experiment-name", "contract", GITHUB_OUTPUT=str(tmp_path))
    assert done.returncode == 0
    assert "GITHUB_OUTPUT cannot be written" in done.stderr


def test_a_run_inside_a_job_leaves_the_step_to_the_outermost_client(tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    environ = {"GITHUB_OUTPUT": str(outputs), "MLFLOW_AZURE_RUN_ID": "1"}
    write_outputs(environ, run_id="2", status="FINISHED", exit_code=0)
    assert not outputs.exists()


def test_commands_are_escaped_as_the_runner_reads_them() -> None:
    assert error_line("100%\r\nsure") == "::error::100%25%0D%0Asure"
    environ = {"GITHUB_WORKSPACE": "/w"}
    assert annotation("a: b, c", "x/a,b:c.py:31  f(x)", Path("/w/p"), environ) == (
        "::error file=p/x/a%2Cb%3Ac.py,line=31::a: b, c"
    )
    assert annotation("a", "train.py:3", Path("/elsewhere"), environ) == "::error file=train.py,line=3::a"
    assert annotation("a", "python_env.yaml", Path("/w"), environ) == "::error::a"
