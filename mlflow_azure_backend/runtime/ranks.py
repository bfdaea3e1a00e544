"""Which of a job's processes this is: one number for all kinds of distribution.

Azure ML tells every process its MLflow run, so all ranks track into the same one, as they do under ``torchrun`` on one
machine; a project that wants one voice asks ``RANK``, or ``MLFLOW_AZURE_RANK``, which is set whatever the distribution.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

RANK_VARIABLE = "MLFLOW_AZURE_RANK"
"""Set in every job of ours: the process's number in the whole job, from 0."""
_RANKS = ("RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK")
_NODES = ("AZUREML_CR_NODE_RANK", "NODE_RANK")
_KINDS = ("chief", "master", "worker", "ps", "evaluator")
"""TensorFlow's kinds of tasks; the first task of the first kind that there is leads."""


@dataclass(frozen=True)
class Place:
    """One process among the others.

    Attributes:
        rank: Its number in the whole job, from 0.
        node: The number of its node, from 0.
    """

    rank: int
    node: int


def place_of(environ: Mapping[str, str]) -> Place:
    """The place that the variables of PyTorch, Mpi or TensorFlow give; the first where none is given."""
    rank = _first_number(environ, _RANKS)
    return Place(_tensorflow_rank(environ) if rank is None else rank, _first_number(environ, _NODES) or 0)


def _first_number(environ: Mapping[str, str], names: tuple[str, ...]) -> int | None:
    return next((int(environ[name]) for name in names if environ.get(name, "").isdigit()), None)


def _tensorflow_rank(environ: Mapping[str, str]) -> int:
    try:
        told = json.loads(environ.get("TF_CONFIG", "{}"))
        kind, index = str(told["task"]["type"]), int(told["task"]["index"])
        before = sum(len(told["cluster"].get(other, ())) for other in _KINDS[: _KINDS.index(kind)])
    except (ValueError, LookupError, TypeError, AttributeError):
        return 0
    return before + index
