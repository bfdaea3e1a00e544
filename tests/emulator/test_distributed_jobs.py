"""Jobs of several nodes and processes: each rank has its place, its address and its log, and they end together."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mlflow_azure_backend.emulator import EmulatorServer
from tests.emulator.test_jobs import Submitter
from tests.emulator.test_ml_client import ml_client  # noqa: F401

if TYPE_CHECKING:
    from azure.ai.ml import MLClient

MEET = """
import json, os, pathlib, socket
rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
node = int(os.environ["AZUREML_CR_NODE_RANK"])
master = (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
own = os.environ["AZ_BATCH_HOST_LIST"].split(",")[node]
if rank == 0:
    with socket.create_server(master, backlog=world) as listening:
        met = [0]
        while len(met) < world:
            other, _ = listening.accept()
            with other, other.makefile() as said:
                met.append(json.loads(said.readline()))
    print("all met:", sorted(met[1:]))
else:
    import time
    while True:
        try:
            there = socket.create_connection(master, source_address=(own, 0))
            break
        except ConnectionRefusedError:
            time.sleep(0.05)
    with there:
        there.sendall(json.dumps([rank, node, os.environ["LOCAL_RANK"], there.getsockname()[0]]).encode() + b"\\n")
    print("told by", rank)
pathlib.Path("outputs").mkdir(exist_ok=True)
pathlib.Path(f"outputs/of rank {rank}").write_text(str(node))
"""


@pytest.fixture(scope="module")
def client(emulator: EmulatorServer) -> Iterator[Submitter]:
    with Submitter(emulator) as made:
        yield made


@pytest.fixture(scope="module")
def environment(client: Submitter) -> str:
    return client.environment()


def logs_of(client: Submitter, name: str) -> dict[str, str]:
    """What each log of a job says, by its name."""
    told = client.get(f"{client.history}/runs/{name}/details").json()["logFiles"]
    return {path: client.blob("GET", uri).text for path, uri in told.items()}


def run(client: Submitter, name: str, **properties: Any) -> dict[str, str]:
    """The logs of a job that must complete."""
    assert client.submit(name, **properties).status_code == 201
    job, logs = client.wait(name, "Completed", "Failed"), logs_of(client, name)
    assert job["properties"]["status"] == "Completed", (logs, client.get(f"{client.history}/runs/{name}").json())
    return logs


@pytest.mark.filterwarnings("ignore")
def test_the_ranks_of_pytorch_meet_at_the_master(
    ml_client: MLClient,  # noqa: F811
    tmp_path: Path,
) -> None:
    from azure.ai.ml import PyTorchDistribution, command
    from azure.ai.ml.entities import Environment

    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "meet.py").write_text(MEET)
    (tmp_path / "conda.yaml").write_text("dependencies: [python]")
    wanted = command(
        name="ranks",
        code=str(tmp_path / "code"),
        command="python meet.py",
        environment=Environment(image="ubuntu", conda_file=str(tmp_path / "conda.yaml")),
        instance_count=2,
        distribution=PyTorchDistribution(process_count_per_instance=2),
    )
    ml_client.jobs.create_or_update(wanted)
    ml_client.jobs.stream("ranks")
    job = ml_client.jobs.get("ranks")
    ml_client.jobs.download("ranks", download_path=str(tmp_path / "got"))
    folder = tmp_path / "got" / "artifacts"
    logs = {path.name: path.read_text() for path in (folder / "user_logs").iterdir()}
    assert job.status == "Completed", logs
    told = "[1, 0, '1', '127.0.0.1'], [2, 1, '0', '127.0.0.2'], [3, 1, '1', '127.0.0.2']"
    assert logs == {
        "std_log_process_00.txt": f"all met: [{told}]\n",
        **{f"std_log_process_0{rank}.txt": f"told by {rank}\n" for rank in (1, 2, 3)},
    }
    kept = {path.name: path.read_text() for path in (folder / "outputs").iterdir()}
    assert kept == {"of rank 0": "0", "of rank 1": "0", "of rank 2": "1", "of rank 3": "1"}


def test_each_process_of_mpi_is_told_as_open_mpi_tells(client: Submitter, environment: str) -> None:
    names = ("RANK", "SIZE", "LOCAL_RANK", "LOCAL_SIZE")
    told = " ".join(f"$OMPI_COMM_WORLD_{name}" for name in names)
    logs = run(
        client,
        "mpi",
        command=f"echo {told} $AZUREML_CR_NODE_RANK of $AZUREML_NODE_COUNT, $AZ_BATCHAI_JOB_MASTER_NODE_IP",
        environmentId=environment,
        resources={"instanceCount": 2},
        distribution={"distributionType": "Mpi", "processCountPerInstance": 2},
    )
    assert [logs[f"user_logs/std_log_process_0{rank}.txt"] for rank in range(4)] == [
        f"{rank} 4 {rank % 2} 2 {rank // 2} of 2, 127.0.0.1\n" for rank in range(4)
    ]
    assert len(logs) == 4


def test_each_task_of_tensorflow_knows_the_cluster(client: Submitter, environment: str) -> None:
    logs = run(
        client,
        "tensors",
        command="echo $TF_CONFIG",
        environmentId=environment,
        resources={"instanceCount": 2},
        distribution={"distributionType": "TensorFlow", "parameterServerCount": 1, "workerCount": 2},
    )
    told = {name: json.loads(text) for name, text in logs.items()}
    cluster = told["user_logs/std_log_node_00_ps.txt"]["cluster"]
    tasks = {name: (one["task"]["type"], one["task"]["index"]) for name, one in told.items()}
    assert tasks == {
        "user_logs/std_log_node_00_ps.txt": ("ps", 0),
        "user_logs/std_log_node_00_worker.txt": ("worker", 0),
        "user_logs/std_log_node_01_worker.txt": ("worker", 1),
    }
    assert all(one["cluster"] == cluster for one in told.values())
    hosts = {kind: [place.partition(":")[0] for place in places] for kind, places in cluster.items()}
    assert hosts == {"ps": ["127.0.0.1"], "worker": ["127.0.0.1", "127.0.0.2"]}


def test_nodes_without_a_distribution_run_the_command_once(client: Submitter, environment: str) -> None:
    command = "echo $AZUREML_CR_NODE_RANK $AZUREML_NODE_COUNT $AZ_BATCH_HOST_LIST"
    logs = run(client, "pair", command=command, environmentId=environment, resources={"instanceCount": 2})
    assert logs == {"user_logs/std_log.txt": "0 2 127.0.0.1,127.0.0.2\n"}


def test_a_rank_that_fails_ends_the_others(client: Submitter, environment: str) -> None:
    client.submit(
        "torn",
        command="if [ $RANK = 1 ]; then echo no; exit 7; fi; sleep 1000",
        environmentId=environment,
        resources={"instanceCount": 3},
        distribution={"distributionType": "PyTorch"},
    )
    client.wait("torn", "Failed")
    error = client.get(f"{client.history}/runs/torn/details").json()["error"]["error"]
    assert "exited with status code 7. Please check log file 'user_logs/std_log_process_01.txt'" in error["message"]
    assert logs_of(client, "torn")["user_logs/std_log_process_01.txt"] == "no\n"


def test_a_distribution_without_a_process_is_refused(client: Submitter, environment: str) -> None:
    nothing = {"distributionType": "TensorFlow", "parameterServerCount": 0, "workerCount": 0}
    client.submit("nobody", command="true", environmentId=environment, distribution=nothing)
    client.wait("nobody", "Failed")
    error = client.get(f"{client.history}/runs/nobody/details").json()["error"]["error"]
    assert "neither workers nor parameter servers" in error["message"]
