"""The runner of a job: variables, exit codes, signals, what is left behind, what is reported."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from mlflow_azure_backend.runtime.order import CODE_ARCHIVE, ORDER_VARIABLE, JobOrder
from mlflow_azure_backend.workspace.travelling import job_command
from tests.runtime.conftest import Node, pythons

SHOW = "python3 -c 'import json, os; print(json.dumps(dict(os.environ)))'"


@pytest.mark.parametrize("python", pythons(), ids=lambda path: path.parts[-2])
def test_the_command_s_output_and_exit_code_are_its_own(node: Node, python: Path) -> None:
    node.python = python
    done = node.run("printf 'a\\0\\n\\342\\230\\203'; printf \"it's\" >&2; exit 7")
    assert (done.code, done.out, done.err) == (7, "a\0\n\u2603", "it's")
    told = node.report()
    assert (told.rank, told.exit_code, told.signal, told.problem, told.environment) == (0, 7, None, None, "image")
    assert told.ended_at is not None
    assert told.ended_at >= told.started_at


def test_a_command_that_a_signal_ends_has_a_shell_s_exit_code(node: Node) -> None:
    done = node.run("kill -SEGV $$")
    assert done.code == 128 + signal.SIGSEGV
    assert node.report().signal == signal.SIGSEGV


def test_what_must_hold_in_the_command_holds_whatever_was_set_before(node: Node) -> None:
    order = JobOrder(
        variables={"HOLDS": "it's \u2603\nso"}, renamed={"PASSWORD": "MLFLOW_AZURE_SECRET_0"}, run_id="run-1"
    )
    told = node.run(
        SHOW,
        order,
        HOLDS="no",
        MLFLOW_AZURE_SECRET_0="x",  # noqa: S106
        MLFLOW_RUN_ID="azure's",
        PYTHONPATH="src",
    ).json()
    assert (told["HOLDS"], told["PASSWORD"], told["MLFLOW_RUN_ID"]) == ("it's \u2603\nso", "x", "run-1")
    assert told["PYTHONPATH"] == f"src:{node.working}/.mlflow-azure/runtime.zip"
    assert (told["PYTHONUNBUFFERED"], told["MLFLOW_AZURE_RANK"], told["MLFLOW_AZURE_ATTEMPT"]) == ("1", "0", "1")
    assert {ORDER_VARIABLE, "MLFLOW_AZURE_SECRET_0"}.isdisjoint(told)
    assert node.run("echo $PYTHONUNBUFFERED", PYTHONUNBUFFERED="x").out == "x\n"


def test_another_tracking_server_is_not_given_the_workspace_s_token(node: Node) -> None:
    azures = {"MLFLOW_TRACKING_URI": "azureml://x", "MLFLOW_TRACKING_TOKEN": "azure", "MLFLOW_EXPERIMENT_ID": "9"}
    told = node.run(SHOW, JobOrder(tracking_uri="http://other", run_id="r"), **azures).json()
    found = (told["MLFLOW_TRACKING_URI"], told["MLFLOW_RUN_ID"], told["MLFLOW_AZURE_RUN_ID"])
    assert found == ("http://other", "r", "r")
    assert {"MLFLOW_TRACKING_TOKEN", "MLFLOW_EXPERIMENT_ID"}.isdisjoint(told)
    assert node.run(SHOW, **azures).json()["MLFLOW_TRACKING_TOKEN"] == azures["MLFLOW_TRACKING_TOKEN"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_the_command_which_may_end_as_it_likes(node: Node, number: signal.Signals) -> None:
    name = number.name[3:]
    process = node.start(f"trap 'echo bye; exit 5' {name}; echo ready; sleep 1000 & wait")
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    os.kill(process.pid, number)
    assert process.communicate(timeout=100)[0] == b"bye\n"
    assert (process.returncode, node.report().stopped_by) == (5, number)


def test_a_command_that_does_not_heed_term_is_killed_after_the_grace(node: Node) -> None:
    process = node.start("trap '' TERM; echo ready; while :; do :; done", JobOrder(grace=0.1))
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    os.kill(process.pid, signal.SIGTERM)
    process.communicate(timeout=100)
    told = node.report()
    assert (process.returncode, told.signal, told.stopped_by) == (137, signal.SIGKILL, signal.SIGTERM)


def test_nothing_that_the_command_started_outlives_the_job(node: Node) -> None:
    daemon = "setsid sh -c \"trap '' TERM; echo \\$\\$ > pid; exec sleep 1000\" >/dev/null 2>&1 &"
    done = node.run(f"{daemon} while [ ! -s pid ]; do :; done; exit 4", JobOrder(grace=0.1))
    assert done.code == 4
    assert not Path(f"/proc/{(node.working / 'pid').read_text().strip()}").exists()


def test_what_is_no_job_of_ours_is_said_in_one_line(node: Node) -> None:
    done = node.run("true", **{ORDER_VARIABLE: '{"version": 99}'})
    assert done.code == 1
    assert done.out == ""
    assert done.err.startswith("mlflow-azure: MLFLOW_AZURE_ORDER holds no order of this version: ")
    assert done.err.count("\n") == 1
    assert f"mlflow-azure: {node.report().problem}\n" == done.err


def test_where_azure_ml_put_an_input_is_a_variable_of_the_command(node: Node) -> None:
    node.lay({})
    environ = {**node.variables, "PATH": os.environ["PATH"], ORDER_VARIABLE: JobOrder().to_json()}
    command = job_command("echo $AZURE_ML_INPUT_data", {"AZURE_ML_INPUT_data": "${{inputs.data}}"})
    filled = command.replace("${{inputs.data}}", "/mnt/azureml/a b=c")
    done = subprocess.run(["bash", "-c", filled], cwd=node.working, env=environ, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("/mnt/azureml/a b=c\n", "")


def test_a_project_that_travels_as_one_archive_is_unpacked_once_for_all_ranks(node: Node) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, text in {"src/train \u2603.py": b"print('trains')", "run.sh": b"echo runs"}.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(text), 0o755
            archive.addfile(entry, io.BytesIO(text))
    node.lay({CODE_ARCHIVE: packed.getvalue()})
    command = "./run.sh; python3 src/train*.py; echo changed > run.sh"
    assert node.run(command).out == "runs\ntrains\n"
    assert node.run("cat run.sh", RANK="1").out == "changed\n"
    (node.working / ".mlflow-azure/code.unpacked").unlink()
    node.lay({CODE_ARCHIVE: packed.getvalue()[:-20]})
    done = node.run("true")
    assert done.code == 1
    assert "the project's files cannot be unpacked" in done.err


def test_modules_of_the_project_do_not_break_the_runner(node: Node) -> None:
    node.lay({"json.py": b"raise SystemExit('shadowed')", "src/os.py": b"raise SystemExit('shadowed')"})
    assert node.run("echo fine", PYTHONPATH=f"{node.working}:{node.working / 'src'}").out == "fine\n"


@pytest.mark.parametrize(
    ("variables", "rank", "in_node"),
    [
        ({"RANK": "3", "NODE_RANK": "1", "AZUREML_CR_NODE_RANK": "1"}, 3, 1),
        ({"OMPI_COMM_WORLD_RANK": "2", "AZUREML_CR_NODE_RANK": "2"}, 2, 2),
        (
            {
                "TF_CONFIG": json.dumps(
                    {"cluster": {"worker": ["a", "b"], "ps": ["c"]}, "task": {"type": "ps", "index": 0}}
                )
            },
            2,
            0,
        ),
        ({"TF_CONFIG": "garbage", "RANK": ""}, 0, 0),
    ],
)
def test_every_rank_knows_its_place_and_reports_by_itself(
    node: Node, variables: dict[str, str], rank: int, in_node: int
) -> None:
    assert node.run("echo $MLFLOW_AZURE_RANK", **variables).out == f"{rank}\n"
    assert (node.report(rank).rank, node.report(rank).node) == (rank, in_node)


def test_attempts_share_a_folder_and_are_counted(node: Node, tmp_path: Path) -> None:
    order = JobOrder(checkpoints="durable")
    place = {"AZURE_ML_OUTPUT_durable": str(tmp_path / "durable")}
    save = 'echo $MLFLOW_AZURE_ATTEMPT >> "$MLFLOW_AZURE_CHECKPOINTS/log"; cat "$MLFLOW_AZURE_CHECKPOINTS/log"'
    assert node.run(save, order, **place).out == "1\n"
    assert node.run(save, order, **place).out == "1\n2\n"  # the service started it again
    assert node.run(save, JobOrder(checkpoints="durable", attempt=7), **place).out == "1\n2\n7\n"
    assert node.report().attempt == 7
    (tmp_path / "file").touch()
    refused = node.run("true", order, AZURE_ML_OUTPUT_durable=str(tmp_path / "file"))
    assert refused.code == 1
    assert "the folder for checkpoints cannot be used" in refused.err


def test_an_image_with_an_older_python_is_told_so(node: Node) -> None:
    node.lay({})
    zip_file = ".mlflow-azure/runtime.zip"
    pretend = f"import sys, runpy; sys.version_info = (3, 6, 9); runpy.run_path('{zip_file}', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", pretend], cwd=node.working, capture_output=True, text=True)
    said = "mlflow-azure: this image's python3 is 3.6, and a job needs 3.8 or newer; name another image\n"
    assert (done.returncode, done.stderr) == (1, said)


@pytest.mark.docker
def test_a_command_that_the_kernel_killed_for_want_of_memory_is_reported_so(base_image: str, tmp_path: Path) -> None:
    node = Node(tmp_path, {})
    node.lay({})
    limits = ["--memory", "64m", "--memory-swap", "64m", "--env", f"{ORDER_VARIABLE}={JobOrder().to_json()}"]
    command = job_command("python3 -c 'x = b\"x\" * 10**9'")
    place = ["--volume", f"{tmp_path}:/work", "--workdir", "/work"]
    run = ["docker", "run", "--rm", *limits, *place, base_image, "/bin/sh", "-c", command]
    done = subprocess.run(run, capture_output=True, text=True)
    told = node.report()
    assert (done.returncode, told.exit_code) == (137, 137), done.stderr
    assert told.oom_kills is not None
    assert told.oom_kills >= 1
    assert told.memory_limit == 64 * 1024 * 1024
    assert told.memory_peak is None or told.memory_peak > told.memory_limit * 0.9  # older kernels do not say
