"""How the runner of a job speaks: lines in the job's log that are marked as not the project's."""

from __future__ import annotations

import contextlib
import os

MARK = "mlflow-azure: "
"""What each of them begins with."""


def say(text: str, *, error: bool = False) -> None:
    """Write one line; a log that takes nothing more ends no job."""
    line = MARK + " ".join(text.split()) + "\n"
    with contextlib.suppress(OSError):
        os.write(2 if error else 1, line.encode("utf-8", "replace"))
