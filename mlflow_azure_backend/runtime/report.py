"""What a job of ours reports of its own end, for the client's diagnosis: one small JSON file for each rank.

Azure ML keeps ``./logs`` as artifacts of the run by itself, so no network and no MLflow is needed to report, and
nothing of ours is among the user's outputs.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace

FOLDER = "logs/mlflow-azure"
"""Where the reports are, below the job's working folder and among the run's artifacts."""


def report_name(rank: int) -> str:
    """The artifact path of a rank's report."""
    return f"{FOLDER}/rank-{rank}.json"


@dataclass(frozen=True)
class JobReport:
    """How one rank came to its end. Written first when the command starts: without an end, the runner was killed.

    Attributes:
        rank: Among all processes of the job, from 0.
        node: The node's number, from 0.
        attempt: Which attempt at the run, from 1.
        environment: Where the environment came from: ``image``; ``node``: an earlier job left it there; ``kept``:
            unpacked from the workspace; ``installed``; None: it could not be had.
        environment_seconds: What that took.
        python: Version of the command's Python, else of the runner's where that is not known.
        started_at: Seconds since 1970.
        ended_at: None: it had not ended.
        exit_code: The command's, 128 + the signal's number when one ended it, as shells have it; None: it did not end.
        signal: The signal that ended the command itself; None: none, or the shell took it and only ``exit_code`` says.
        stopped_by: The signal by which we were asked to end; None: nobody did.
        problem: What kept the command from being run, in one line; None: it ran.
        oom_kills: Processes that the kernel killed here for want of memory while the command ran; None: not known.
        memory_peak: Bytes that the container used at most; None: not known.
        memory_limit: Bytes that it may use; None: not limited, or not known.
        largest_process: Bytes that the largest process below us used at most.
        folder: The working folder of the command.
        kept: What became of keeping the environment for later jobs, in one line; None: nothing was to be kept.
    """

    rank: int
    node: int
    attempt: int
    started_at: float
    environment: str | None = None
    environment_seconds: float = 0.0
    python: str | None = None
    ended_at: float | None = None
    exit_code: int | None = None
    signal: int | None = None
    stopped_by: int | None = None
    problem: str | None = None
    oom_kills: int | None = None
    memory_peak: int | None = None
    memory_limit: int | None = None
    largest_process: int | None = None
    kept: str | None = None
    folder: str | None = None

    def to_json(self) -> str:
        """The file's text."""
        return json.dumps(asdict(self), sort_keys=True) + "\n"


def from_json(text: str) -> JobReport:
    """Read a report; what a newer runtime added is passed over.

    Raises:
        ValueError: It is no report.
    """
    told = json.loads(text)
    if not isinstance(told, dict):
        raise ValueError("no report of a job: it is no object")
    empty = JobReport(rank=0, node=0, attempt=1, started_at=0.0)
    return replace(empty, **{name: value for name, value in told.items() if name in asdict(empty)})
