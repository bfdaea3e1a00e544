"""What can be ordered to happen to emulated jobs: preemptions, late logs, unknown words, jobs that vanish."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mlflow_azure_backend.emulator import EmulatorServer
from mlflow_azure_backend.emulator.problems import EmulatorProblem
from tests.emulator.test_distributed_jobs import logs_of
from tests.emulator.test_jobs import VERSION, Submitter

LOG = "user_logs/std_log.txt"


@pytest.fixture(scope="module")
def client(emulator: EmulatorServer) -> Iterator[Submitter]:
    with Submitter(emulator) as made:
        yield made


@pytest.fixture(scope="module")
def environment(client: Submitter) -> str:
    return client.environment()


def until(client: Submitter, name: str, seen: Callable[[dict[str, str]], bool]) -> dict[str, str]:
    """The job's logs once they are as wanted; pytest's timeout bounds it."""
    while not seen(logs := logs_of(client, name)):
        pass
    return logs


def test_a_preempted_job_runs_again_with_what_it_had_written(
    client: Submitter, emulator: EmulatorServer, environment: str, tmp_path: Path
) -> None:
    command = "cd ${{outputs.kept}}; if [ -e step ]; then echo goes on from $(cat step); else echo 7 > step; "
    command += f"echo begun; mkfifo '{tmp_path}/never'; cat '{tmp_path}/never'; fi"
    outputs = {"kept": {"jobOutputType": "uri_folder"}}
    spot = {"jobTier": "Spot"}
    client.submit("spot", command=command, environmentId=environment, outputs=outputs, queueSettings=spot)
    until(client, "spot", lambda logs: logs.get(LOG) == "begun\n")
    emulator.control("POST", "/jobs/spot/preempt")
    client.wait("spot", "Completed")
    logs = logs_of(client, "spot")
    assert (logs[LOG], logs["user_logs/retry_001/std_log.txt"]) == ("begun\n", "goes on from 7\n")
    with pytest.raises(EmulatorProblem, match="Job spot does not run; it is Completed"):
        emulator.control("POST", "/jobs/spot/preempt")


def test_a_job_is_over_while_its_log_still_grows(client: Submitter, emulator: EmulatorServer, environment: str) -> None:
    emulator.control("PUT", "/jobs/tardy/orders", {"late_logs": 0.5})
    client.submit("tardy", command="seq 1000", environmentId=environment)
    client.wait("tardy", "Completed")
    whole = "".join(f"{number}\n" for number in range(1, 1001))
    halves = until(client, "tardy", lambda logs: bool(logs.get(LOG)))[LOG]
    assert whole.startswith(halves)
    until(client, "tardy", lambda logs: logs[LOG] == whole)


def test_an_unknown_status_word_is_shown(client: Submitter, emulator: EmulatorServer, environment: str) -> None:
    emulator.control("PUT", "/jobs/odd/orders", {"status": "Hibernating"})
    client.submit("odd", command="true", environmentId=environment)
    assert client.wait("odd", "Hibernating")["properties"]["status"] == "Hibernating"
    assert client.get(f"{client.history}/runs/odd").json()["status"] == "Hibernating"
    emulator.control("PUT", "/jobs/odd/orders", {"status": None})
    client.wait("odd", "Completed")
    with pytest.raises(EmulatorProblem, match="word: no such order; there are status and late_logs"):
        emulator.control("PUT", "/jobs/odd/orders", {"word": "x"})


def test_a_job_that_vanished_is_found_nowhere(client: Submitter, emulator: EmulatorServer, environment: str) -> None:
    client.submit("ghost", command="echo here; sleep 1000", environmentId=environment)
    until(client, "ghost", lambda logs: logs.get(LOG) == "here\n")
    emulator.control("POST", "/jobs/ghost/vanish")
    assert client.job("ghost")["error"]["message"] == "Job ghost not found."
    assert client.get(f"{client.history}/runs/ghost/details").status_code == 404
    assert "ghost" not in [one["name"] for one in client.get(f"{client.arm}/jobs", params=VERSION).json()["value"]]
    with pytest.raises(EmulatorProblem, match="There is no job ghost"):
        emulator.control("POST", "/jobs/ghost/vanish")
    client.submit("ghost", command="echo again", environmentId=environment)
    client.wait("ghost", "Completed")


def test_a_cancel_ends_the_commands_of_all_nodes(client: Submitter, environment: str, tmp_path: Path) -> None:
    command = (
        f"exec > /dev/null; mkfifo '{tmp_path}/'$RANK; sh -c 'exec 9> \"$0\"; sleep 1000' '{tmp_path}/'$RANK & wait"
    )
    distribution = {"distributionType": "PyTorch"}
    resources = {"instanceCount": 2}
    client.submit(
        "pair-of-trees", command=command, environmentId=environment, distribution=distribution, resources=resources
    )
    fifos = [tmp_path / "0", tmp_path / "1"]
    while not all(fifo.exists() for fifo in fifos):
        client.job("pair-of-trees")
    readers = [fifo.open("rb") for fifo in fifos]  # opens once its writer is there
    client.post(f"{client.arm}/jobs/pair-of-trees/cancel", params=VERSION)
    assert [reader.read() for reader in readers] == [b"", b""]  # the end of file: its writer is gone
    client.wait("pair-of-trees", "Canceled")
    for reader in readers:
        reader.close()
