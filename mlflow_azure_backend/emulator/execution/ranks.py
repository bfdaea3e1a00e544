"""Which processes a job has: how its nodes and its distribution become ranks, addresses and variables.

The variables are those of Microsoft's "Distributed GPU training guide" (PyTorch, Mpi as Open MPI sets them,
TensorFlow's ``TF_CONFIG``) and of public jobs' logs, the log files' names those of azure-ai-ml's own tests of following
logs. That a job on several nodes without a distribution runs its command on the first node only is inferred.
"""

from __future__ import annotations

import ipaddress
import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlflow_azure_backend.emulator.execution.ends import Refused

_FIRST = ipaddress.IPv4Address("127.0.0.1")


@dataclass(frozen=True)
class Rank:
    """One process of a job.

    Attributes:
        node: The node that it runs on, from 0.
        log: Its log's name below ``user_logs/``.
        variables: What the runtime tells it of its place among the others.
    """

    node: int
    log: str
    variables: Mapping[str, str]


def address(node: int) -> str:
    """A node's address: all are on loopback."""
    return str(_FIRST + node)


def ranks_of(distribution: Mapping[str, Any] | None, nodes: int) -> list[Rank]:
    """The processes of a job, in the order of their ranks.

    Args:
        distribution: As the job was submitted with it; None: none.
        nodes: Its ``resources.instanceCount``.

    Raises:
        Refused: The distribution asks for no process.
    """
    if distribution is None:
        return [Rank(0, "std_log.txt", _of_node(0, nodes) if nodes > 1 else {})]
    kind = str(distribution["distributionType"]).lower()
    if kind == "tensorflow":
        return _tensorflow(distribution, nodes)
    each = distribution.get("processCountPerInstance") or 1
    port = _free_port()
    tell = _pytorch if kind == "pytorch" else _mpi
    return [
        Rank(
            node=rank // each,
            log=f"std_log_process_{rank:02}.txt",
            variables={**_of_node(rank // each, nodes), **tell(rank, each, nodes, port)},
        )
        for rank in range(nodes * each)
    ]


def _of_node(node: int, nodes: int) -> dict[str, str]:
    return {
        "AZUREML_CR_NODE_RANK": str(node),
        "AZUREML_NODE_COUNT": str(nodes),
        "AZ_BATCHAI_JOB_MASTER_NODE_IP": address(0),
        "AZ_BATCH_HOST_LIST": ",".join(address(one) for one in range(nodes)),
    }


def _pytorch(rank: int, each: int, nodes: int, port: int) -> dict[str, str]:
    return {
        "MASTER_ADDR": address(0),
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(nodes * each),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank % each),
        "NODE_RANK": str(rank // each),
    }


def _mpi(rank: int, each: int, nodes: int, port: int) -> dict[str, str]:
    return {
        "OMPI_COMM_WORLD_RANK": str(rank),
        "OMPI_COMM_WORLD_SIZE": str(nodes * each),
        "OMPI_COMM_WORLD_LOCAL_RANK": str(rank % each),
        "OMPI_COMM_WORLD_LOCAL_SIZE": str(each),
        "OMPI_COMM_WORLD_NODE_RANK": str(rank % each),
        "OMPI_UNIVERSE_SIZE": str(nodes * each),
        "AZ_BATCH_MASTER_NODE": f"{address(0)}:{port}",
    }


def _tensorflow(distribution: Mapping[str, Any], nodes: int) -> list[Rank]:
    """Parameter servers, then workers; each kind is dealt to the nodes in turn."""
    workers = distribution.get("workerCount")
    counts = {"ps": distribution.get("parameterServerCount") or 0, "worker": nodes if workers is None else workers}
    if not sum(counts.values()):
        raise Refused("the TensorFlow distribution has neither workers nor parameter servers; give workerCount")
    tasks = [(kind, index) for kind, count in counts.items() for index in range(count)]
    places: dict[str, list[str]] = {kind: [] for kind, count in counts.items() if count}
    for kind, index in tasks:
        places[kind].append(f"{address(index % nodes)}:{_free_port()}")
    return [
        Rank(
            node=index % nodes,
            log=f"std_log_node_{index:02}_{kind}.txt",
            variables={
                **_of_node(index % nodes, nodes),
                "TF_CONFIG": json.dumps(
                    {"cluster": places, "task": {"type": kind, "index": index}, "environment": "cloud"}
                ),
            },
        )
        for kind, index in tasks
    ]


def _free_port() -> int:
    """A port that nothing uses now; the job's own process binds it."""
    with socket.socket() as trying:
        trying.bind(("", 0))
        return int(trying.getsockname()[1])
