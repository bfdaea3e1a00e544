"""What the client tells a job of ours beside its command: one JSON text in one environment variable.

It holds no secret, for everybody who sees a job in the workspace sees its variables.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

ORDER_VARIABLE = "MLFLOW_AZURE_ORDER"
"""Holds the order."""
FOLDER = ".mlflow-azure"
"""The folder beside the project's files in the job's code that holds the runtime and the locks."""

CODE_ARCHIVE = f"{FOLDER}/code.tar.gz"
"""The project's files, where they travel as one archive: unpacked into the working folder first."""


class MalformedOrder(ValueError):
    """No order of this version; one line."""


@dataclass(frozen=True)
class LockedEnvironment:
    """An environment that the job installs at its start from a lock that came with it.

    Attributes:
        key: The environment key, hexadecimal digits: the same for the same packages, Python and platform.
        kind: ``python`` (a virtual environment by uv) or ``conda`` (a conda prefix by py-rattler and uv).
        lock: The lock's file name in ``FOLDER``.
        installers: Versions of ``uv`` and, for conda, ``py-rattler``: those that made the lock.
        python: ``3.11``, which a virtual environment is made with; None for conda, whose lock has its own.
        implementation: ``cpython`` or another.
        variables: For uv and rattler alone, such as UV_INDEX_STRATEGY; what the job itself sets goes first.
        kept_in: The job's output, mounted for reading and writing, where the packed prefix is kept by its key; None:
            nowhere, every node installs anew.
    """

    key: str
    kind: str
    lock: str
    installers: Mapping[str, str]
    python: str | None = None
    implementation: str = "cpython"
    variables: Mapping[str, str] = field(default_factory=dict)
    kept_in: str | None = None


@dataclass(frozen=True)
class JobOrder:
    """One job's order.

    Attributes:
        environment: What to install first; None: the image has all.
        prefix: A prefix in the image to activate; None: none, the image's own variables hold. Of no meaning with
            ``environment``.
        variables: What must hold in the command, whatever Azure ML sets.
        renamed: By its name in the command, the variable of the job that has the value and that the command does not
            get: for secrets under names that Azure ML sets itself, such as ``MLFLOW_TRACKING_TOKEN``.
        places: Where the command expects inputs; by its place, the variable that says where Azure ML has put one.
        tracking_uri: Where the command tracks; None: in the workspace, as Azure ML sets it.
        run_id: The MLflow run that the command joins; None: the one that Azure ML sets.
        checkpoints: The job's output, mounted for reading and writing, that all attempts share; None: there is none.
        attempt: Which attempt at the same run this job is, from 1.
        grace: Seconds between TERM and KILL when the job is ended.
    """

    environment: LockedEnvironment | None = None
    prefix: str | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)
    places: Mapping[str, str] = field(default_factory=dict)
    tracking_uri: str | None = None
    run_id: str | None = None
    checkpoints: str | None = None
    attempt: int = 1
    grace: float = 10.0

    def to_json(self) -> str:
        """The text for ``ORDER_VARIABLE``: the same for the same order."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))


def from_json(text: str) -> JobOrder:
    """Read what ``JobOrder.to_json`` wrote.

    Raises:
        MalformedOrder: It did not write this.
    """
    try:
        told: Any = json.loads(text)
        environment = told.pop("environment", None)
        return JobOrder(environment=None if environment is None else LockedEnvironment(**environment), **told)
    except (ValueError, TypeError, AttributeError) as error:
        raise MalformedOrder(f"{ORDER_VARIABLE} holds no order of this version: {error}") from None
