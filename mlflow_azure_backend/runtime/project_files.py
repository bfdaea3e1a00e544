"""The project's files, where they travel as one archive: unpacked into the working folder before anything else."""

from __future__ import annotations

from pathlib import Path

from .archives import DAMAGED, extract
from .node import CannotRun, alone
from .order import CODE_ARCHIVE, FOLDER


def unpack_code(working: Path) -> None:
    """Unpack ``CODE_ARCHIVE`` if it came with the job; the ranks of a node do so once.

    Raises:
        CannotRun: It is damaged, or cannot be written.
    """
    archive, marker = working / CODE_ARCHIVE, working / FOLDER / "code.unpacked"
    if not archive.is_file():
        return
    try:
        with alone(working / FOLDER / "code.lock"):
            if not marker.exists():
                with archive.open("rb") as stream:
                    extract(stream, working)
                marker.touch()
    except DAMAGED as error:
        raise CannotRun(f"the project's files cannot be unpacked ({error}); submit the job again") from None
