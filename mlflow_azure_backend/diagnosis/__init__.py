"""What went wrong, in the user's words: a table of causes with their fixes.

``evidence`` is what may be looked at, ``traceback_reader`` finds Python's tracebacks in the log, ``ending`` tells which
of them ended the program, ``causes`` is the table, and the other modules hold its entries by subject. A cause is said
only when it is certain: the exit code, the log and the project's own files must agree.
"""

from __future__ import annotations

from pathlib import Path

from mlflow_azure_backend.diagnosis.evidence import Diagnosis, Evidence

__all__ = ["Diagnosis", "Evidence", "diagnose", "locate"]

# The table is imported when it is asked: a run that succeeds never asks.


def diagnose(evidence: Evidence) -> Diagnosis:
    """Say what went wrong, or that it is unknown; never raises, whatever the log holds."""
    from mlflow_azure_backend.diagnosis import explain

    return explain.diagnose(evidence)


def locate(log_tail: bytes, project_folder: Path) -> str | None:
    """The user's own deepest frame of the last traceback, ``train.py:31  pd.read_csv(args.data)``; None without one."""
    from mlflow_azure_backend.diagnosis import explain

    return explain.locate(log_tail, project_folder)
