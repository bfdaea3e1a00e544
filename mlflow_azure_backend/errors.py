"""Every mistake that this package can name.

::

    BackendError                what, where, next step; one line
    ├── ConfigError             backend_config, mlflow-azure.yaml, a profile, an option
    ├── ProjectError            the MLproject, its entry points, fetching it
    │   └── ParameterError      a parameter that is missing, mistyped or points nowhere
    ├── SnapshotError           the project's files cannot or must not be packaged
    ├── EnvironmentUnavailable  the environment cannot be resolved, built or had on this target
    ├── TrackingError           the tracking store cannot be reached, or refuses
    ├── TargetError             the compute target cannot do what is asked
    │   └── WorkspaceError      the Azure ML workspace is not named, not there, refuses or does not answer
    │       └── SignInError     Azure does not know who we are, or no longer
    └── JournalError            our own state on disk is unusable
        └── UnknownRun          no run of that id in the journal

``StillRunning`` is not here: it is raised at MLflow's door and lives in ``submitted_run.py``.
"""

from __future__ import annotations

from pathlib import Path


class BackendError(Exception):
    """A mistake with a name: what is wrong, where, and what to do next.

    Args:
        what: What is wrong, one sentence without a full stop.
        where: A file, ``file:line`` or key; None means that ``what`` says it all.
        next_step: What the user can do, best a line that can be pasted; None means that there is nothing to do.
    """

    def __init__(self, what: str, *, where: str | Path | None = None, next_step: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = None if where is None else str(where)
        self.next_step = next_step

    def __str__(self) -> str:
        head = self.what if self.where is None else f"{self.where}: {self.what}"
        line = head if self.next_step is None else f"{head}; {self.next_step}"
        return " ".join(line.split())


class ConfigError(BackendError):
    """The backend configuration cannot be used; carries every problem found, not the first only."""


class ProjectError(BackendError):
    """The project cannot be found, fetched or understood."""


class ParameterError(ProjectError):
    """A parameter is missing, of the wrong type, or points to something that is not there."""


class SnapshotError(BackendError):
    """The project's files cannot be packaged, or must not be."""


class EnvironmentUnavailable(BackendError):
    """The project's environment cannot be resolved, built, or had on this target."""


class TrackingError(BackendError):
    """The tracking store cannot be reached, or refuses what is asked."""


class TargetError(BackendError):
    """The compute target cannot do what is asked of it."""


class WorkspaceError(TargetError):
    """The Azure ML workspace is not named, not there, refuses, or does not answer."""


class SignInError(WorkspaceError):
    """Azure does not know who we are, or no longer."""


class JournalError(BackendError):
    """The state folder is unusable."""


class UnknownRun(JournalError):
    """No run of that id is in the journal."""
