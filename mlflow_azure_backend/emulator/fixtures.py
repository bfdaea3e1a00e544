"""A pytest fixture for users' own tests: ``from mlflow_azure_backend.emulator.fixtures import azureml_workspace``.

Imported by a ``conftest.py`` only, for it imports pytest.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mlflow_azure_backend.emulator.embedding import EmulatorServer


@pytest.fixture(scope="session")
def azureml_workspace() -> Iterator[EmulatorServer]:
    """An emulated workspace for the whole session, from which nothing outside this machine is reached."""
    with EmulatorServer(outside=False) as emulator:
        yield emulator
