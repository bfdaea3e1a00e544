"""Project folders with awkward names, git work trees, and a machine whose own git settings do not count."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from mlflow_azure_backend.snapshot import Snapshot, SnapshotRules, take_snapshot

Write = Callable[[Mapping[str, str | bytes]], Path]
Git = Callable[..., str]
Take = Callable[..., Snapshot]
Listed = Callable[..., list[str]]


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")


@pytest.fixture
def project(nasty_path: Path) -> Path:
    return nasty_path


@pytest.fixture
def write(project: Path) -> Write:
    """Write files below the project's folder; an empty text makes a file all the same."""

    def write_files(files: Mapping[str, str | bytes]) -> Path:
        for name, content in files.items():
            path = project / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return project

    return write_files


@pytest.fixture
def git(project: Path) -> Git:
    """Run git in the project's folder."""

    def run(*arguments: str, folder: Path = project) -> str:
        settings = ("-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "core.quotePath=false")
        return subprocess.run(
            ["git", *settings, *arguments], cwd=folder, check=True, capture_output=True, text=True
        ).stdout

    return run


@pytest.fixture
def take(project: Path) -> Take:
    """Take a snapshot of the project without a cache; the arguments are those of ``SnapshotRules``."""

    def take_it(root: Path = project, **rules: object) -> Snapshot:
        return take_snapshot(root, SnapshotRules(**rules), cache=None)  # type: ignore[arg-type]  # each test names them

    return take_it


@pytest.fixture
def listed(take: Take) -> Listed:
    """The paths of the files in a snapshot of the project; the arguments are those of ``SnapshotRules``."""
    return lambda **rules: [file.path for file in take(**rules).files]
