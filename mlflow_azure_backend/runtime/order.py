"""What a job in a workspace is told to do: written by the client, read on the node.

The client submits the command ``python3 FOLDER/ARCHIVE NAME=PLACE …``: the zip of this room runs, and each argument
says where the service has put an input or an output. All else is in one variable, so that it needs no shell's quoting.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field

VARIABLE = "MLFLOW_AZURE_ORDER"
"""Holds the order, as JSON."""
FOLDER = ".mlflow-azure"
"""What we bring into the job's working folder is in it, beside the project's files."""
ARCHIVE = "runtime.zip"
"""This room, in ``FOLDER``."""
CODE_ARCHIVE = "code.tar.gz"
"""The project's files, in ``FOLDER``, where they travel as one file: unpacked into the working folder first."""
INPUT_PLACE = "/mlflow-azure/inputs/{}"
"""What stands in the order's command for the place of an input; the runner puts the true one there."""
CACHE_OUTPUT = "mlflow_azure_environments"
"""Name of the output that is the folder of packed environments; absent when there is none."""
REPORT = "logs/mlflow-azure/rank_{}.json"
"""Where each rank writes how its command ended, in the job's working folder: the service uploads ``logs`` itself."""
DIARY = "logs/mlflow-azure/rank_{}.log"
"""Where each rank says what it is doing; stdout and stderr belong to the project."""


@dataclass(frozen=True)
class Order:
    """One job, as the node needs to know it. Holds no secret.

    Attributes:
        command: POSIX shell text.
        environment: ``image``: the command finds its environment in the image; ``python`` or ``conda``: a lock of that
            kind is installed at the job's start.
        environment_key: Names the environment; the same key means the same content.
        lock: Name of the lock file in ``FOLDER``; None for ``image``.
        installers: Versions of uv and py-rattler that made the lock, by their names on PyPI.
        variables: What must hold inside the command, whatever the service sets.
        attempt: 1 for the first; counts the client's new attempts of the same run.
    """

    command: str
    environment: str
    environment_key: str
    lock: str | None = None
    installers: dict[str, str] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    attempt: int = 1

    def to_json(self) -> str:
        """As it stands in the variable."""
        return json.dumps(asdict(self), ensure_ascii=True, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Order:
        """Read it back; what a later version may have added is an error, for it would not be done.

        Raises:
            ValueError: It is none.
        """
        told = json.loads(text)
        try:
            return cls(**told)
        except TypeError as error:
            raise ValueError(str(error)) from None


@dataclass(frozen=True)
class Report:
    """How one rank's command ended: the content of its ``REPORT``.

    Attributes:
        exit_code: Of the command, 128 + n when signal n ended it; None: it never ran.
        signal: The number of the signal that ended it; None when none did.
        started_at: Seconds since the epoch; None: it never ran.
        ended_at: Seconds since the epoch.
        message: One line when the command never ran, or was ended by something else than itself; None else.
        oom: Whether the node's memory limit killed a process of it.
        memory_limit: Bytes; None: not known.
        memory_peak: Bytes; None: not known.
        environment_seconds: What making the environment took.
        environment_hit: Whether it was there already, here or among the packed ones.
    """

    exit_code: int | None
    signal: int | None
    started_at: float | None
    ended_at: float
    message: str | None = None
    oom: bool = False
    memory_limit: int | None = None
    memory_peak: int | None = None
    environment_seconds: float = 0.0
    environment_hit: bool = False

    def to_json(self) -> str:
        """As it stands in the file."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> Report:
        """Read it back; what we do not know is left aside.

        Raises:
            ValueError: It is none.
        """
        told = json.loads(text)
        if not isinstance(told, dict) or not {"exit_code", "signal", "started_at", "ended_at"} <= set(told):
            raise ValueError("it is no report")
        return cls(**{name: value for name, value in told.items() if name in cls.__dataclass_fields__})
