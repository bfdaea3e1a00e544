"""Which of the contract tests run: those on the emulator, or with ``--live`` those on a real workspace."""

from __future__ import annotations

import pytest

from tests.emulator.workspaces import live_path


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs a real workspace, or with ``--live`` all that does not."""
    wanted = bool(config.getoption("--live"))
    if wanted:
        try:
            live_path()
        except LookupError as error:
            raise pytest.UsageError(str(error)) from None
    left_out = [item for item in items if (item.get_closest_marker("live") is not None) is not wanted]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]
