"""From a specification to its lock: resolved once, and kept.

A resolved lock is kept in the cache under its specification, Python, platform and this machine's index settings, so
that the second run neither resolves nor needs a network; it changes only when asked to (``upgrade``).
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Protocol

from mlflow_azure_backend.environment import image_lock, python_lock
from mlflow_azure_backend.environment.cache import (
    Progress,
    exclusive,
    private_folder,
    quiet,
    read_sealed,
    write_sealed,
)
from mlflow_azure_backend.environment.indexes import Machine, read_machine
from mlflow_azure_backend.environment.lock import LOCK_FILES, EnvironmentKind
from mlflow_azure_backend.environment.python_lock import current_lock

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow_azure_backend.environment.lock import EnvironmentLock
    from mlflow_azure_backend.environment.spec import EnvironmentSpec


def resolve(
    spec: EnvironmentSpec, *, cache: Path, upgrade: bool = False, on_progress: Progress = quiet
) -> EnvironmentLock:
    """Resolve a specification, or take what it was resolved to before.

    May block for as long as the package index takes. Several processes that ask for the same resolve it once.

    Args:
        spec: What is wanted.
        cache: The environment cache's folder.
        upgrade: True resolves again, with the newest versions that fit.
        on_progress: Told about each stage.

    Raises:
        EnvironmentUnavailable: no such Python, no such packages, no index, or a cache that cannot be used.
    """
    if spec.kind == "current":
        return current_lock()
    if spec.image is not None:
        return image_lock.image_lock(spec.image, None)
    machine = read_machine(os.environ)
    resolver = _resolver(spec.kind)
    asked = "\n".join((spec.fingerprint, machine.fingerprint, *resolver.question(spec)))
    stored = cache / "locks" / hashlib.sha256(asked.encode("utf-8")).hexdigest()[:32]
    text = None if upgrade else read_sealed(stored)
    if text is None:
        private_folder(stored.parent)
        with exclusive(stored.with_suffix(".lock"), on_progress):
            text = None if upgrade else read_sealed(stored)
            if text is None:
                text = resolver.solve(spec, machine, cache=cache, upgrade=upgrade, on_progress=on_progress)
                write_sealed(stored, text)
    return resolver.read(text, spec, machine)


def recorded_lock(name: str, text: str, spec: EnvironmentSpec) -> EnvironmentLock:
    """Read a lock back that was made elsewhere or earlier, to be used as it is.

    Args:
        name: The name that it was logged under (``EnvironmentLock.file_name``), which says what it is.
        text: Its text.
        spec: What the project wants, for the package indexes that it names.

    Raises:
        EnvironmentUnavailable: It is no lock of ours, or was made for another kind of machine.
    """
    if name == LOCK_FILES["image"]:
        return image_lock.read_recorded(text)
    kind: EnvironmentKind = "conda" if name == LOCK_FILES["conda"] else "python"
    return _resolver(kind).read_recorded(text, spec, read_machine(os.environ))


class _Resolver(Protocol):
    """What a module that makes locks of one kind offers."""

    def question(self, spec: EnvironmentSpec, /) -> tuple[str, ...]: ...

    def solve(
        self, spec: EnvironmentSpec, machine: Machine, *, cache: Path, upgrade: bool, on_progress: Progress
    ) -> str: ...

    def read(self, text: str, spec: EnvironmentSpec, machine: Machine) -> EnvironmentLock: ...

    def read_recorded(self, text: str, spec: EnvironmentSpec, machine: Machine) -> EnvironmentLock: ...


def _resolver(kind: EnvironmentKind) -> _Resolver:
    if kind == "conda":
        from mlflow_azure_backend.environment.conda import locking

        return locking
    return python_lock
