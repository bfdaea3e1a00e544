"""One emulator for all tests of a worker; what a test changes in it must not disturb the others."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mlflow_azure_backend.emulator import EmulatorServer


@pytest.fixture(scope="session")
def emulator() -> Iterator[EmulatorServer]:
    with EmulatorServer(outside=False) as server:
        yield server
