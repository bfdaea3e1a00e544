"""What really runs of a job: its commands, in an environment of its own, as processes of this machine."""

from mlflow_azure_backend.emulator.execution.course import Execution

__all__ = ["Execution"]
