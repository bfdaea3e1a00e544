"""Attempts at one run: which one this is, and the folder that they share.

Azure ML starts a preempted job again under its name, and we submit a failed attempt again under another; both count.
The shared folder holds ``files``, which is the project's, and an empty file for each start of each rank.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from .node import CannotRun
from .order import JobOrder


def attempt_and_folder(order: JobOrder, shared: Path | None, rank: int) -> tuple[int, Path | None]:
    """The number of this attempt, from 1, and the project's folder; None: attempts share none.

    Args:
        order: Says which submission this is.
        shared: Where the output of all attempts is mounted; None: nowhere.
        rank: Ours; each counts its own starts, so none waits for another.

    Raises:
        CannotRun: The folder cannot be used: without it a preempted run would lose what it promised to keep.
    """
    if shared is None:
        return order.attempt, None
    files, starts = shared / "files", shared / "starts"
    try:
        files.mkdir(parents=True, exist_ok=True)
        starts.mkdir(parents=True, exist_ok=True)
        attempt = max(order.attempt, 1 + sum(1 for _ in starts.glob(f"{rank}-*")))
        with contextlib.suppress(FileExistsError):
            (starts / f"{rank}-{attempt}").open("x").close()
    except OSError as error:
        raise CannotRun(f"the folder for checkpoints cannot be used: {error}") from None
    return attempt, files
