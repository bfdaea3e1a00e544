"""What a diagnosis may look at, and what it says: two frozen values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that is known about a job that ended; a diagnosis reads files under ``project_folder`` and nothing else.

    Attributes:
        exit_code: The command's exit code; None when it never exited or nobody saw it.
        signal: The number of the signal that ended the command; None when none did.
        reason: A ``TerminationReason`` value.
        message: The target's own line, such as why the command never started; None when it said nothing.
        log_tail: The last 64 KiB of the child's output, possibly cut in the middle of a line or a character.
        project_folder: The job's working folder, absolute; the root folder when it is not known.
        left_out: From a relative POSIX path to the rule that left it out, such as ``.gitignore:7``; None when none did.
        python_version: Of the job's interpreter, such as ``3.11.7``; None when it is not known.
        packages: Names of the distributions in the environment's lock; None when they are not known.
        environment_file: The project's own file that describes the environment; None for the current interpreter.
        entry_point: Its name, or a script's path.
        parameters: As the user gave them; secret ones are hidden already.
        tracking_uri: The run's own, free of credentials.
        oom: Whether the kernel killed a process of the job for want of memory; None when nobody could tell.
        max_rss: The largest resident set that was seen, in bytes; None when nobody looked.
        timeout: The job's limit in seconds; None when it had none.
        image: The container's image, when it brings the environment; None for any other environment.
        memory_limit: Of the job's container, bytes; None when it had none.
        memory_peak: The most memory that the job's container had, bytes; None when nobody could tell.
        working_folder_is_snapshot: Whether the job ran in a copy of the snapshot instead of the project itself.
    """

    exit_code: int | None
    signal: int | None
    reason: str
    message: str | None
    log_tail: bytes
    project_folder: Path
    left_out: Callable[[str], str | None]
    python_version: str | None
    packages: frozenset[str] | None
    environment_file: str | None
    entry_point: str
    parameters: Mapping[str, str]
    tracking_uri: str
    oom: bool | None
    max_rss: int | None
    timeout: float | None
    working_folder_is_snapshot: bool
    image: str | None = None
    memory_limit: int | None = None
    memory_peak: int | None = None

    @property
    def environment(self) -> str:
        """What the user would call the job's environment."""
        if self.image is not None:
            return f"image {self.image}"
        return self.environment_file or "this environment"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What went wrong.

    Attributes:
        cause_id: A stable slug such as ``missing-module``; ``unknown`` when no cause is certain.
        cause: One line in the user's words.
        at: The user's own deepest frame, ``train.py:31  pd.read_csv(args.data)``; None when no traceback tells it.
        fix: One or two lines; what can be pasted follows the last ``":  "`` of a line. None when there is none to give.
    """

    cause_id: str
    cause: str
    at: str | None
    fix: str | None
