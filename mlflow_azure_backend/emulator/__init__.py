"""An Azure Machine Learning workspace on loopback, for Microsoft's unmodified clients and ours.

Sealed: it imports nothing else of this package, and nothing else imports it; HTTP is the only bridge, so that it cannot
share our mistakes. The command line starts it as ``python -m mlflow_azure_backend.emulator``. Read ``front.py`` first:
it is the way of every request.
"""

from __future__ import annotations

from mlflow_azure_backend.emulator.embedding import EmulatorServer
from mlflow_azure_backend.emulator.problems import EmulatorProblem

__all__ = ["EmulatorProblem", "EmulatorServer"]
