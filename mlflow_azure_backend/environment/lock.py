"""What a specification resolves to: exact packages with their hashes.

A value only. ``resolving.py`` makes it from a specification, ``store.py`` makes a prefix of it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from mlflow_azure_backend.environment.indexes import Sources

if TYPE_CHECKING:
    from collections.abc import Mapping

EnvironmentKind = Literal["current", "python", "conda", "image"]
"""``current`` is the interpreter that MLflow runs in, ``python`` a virtual environment, ``conda`` a conda prefix,
``image`` a container image's own."""

LOCK_FILES: Final[Mapping[EnvironmentKind, str]] = {
    "current": "requirements.txt",
    "python": "requirements.txt",
    "conda": "conda-lock.yml",
    "image": "image.txt",
}
"""What the text of a lock is called where it is logged."""


@dataclass(frozen=True, slots=True)
class LockedPackage:
    """One exact package.

    Attributes:
        name: Canonical name; a conda package's as the channel has it.
        version: Exact version; None for an address, whose archive or commit decides.
        hashes: ``sha256:...`` of every file that may be installed; empty in the current interpreter and for git.
            A conda package has one, an ``md5:...`` where its channel knows no other.
        url: Where it comes from, if not from an index; always given for conda packages.
        manager: Who installs it, in conda-lock's words.
    """

    name: str
    version: str | None
    hashes: tuple[str, ...] = ()
    url: str | None = None
    manager: Literal["pip", "conda"] = "pip"

    def line(self) -> str:
        """A package of pip's as a requirements file says it."""
        wanted = f"{self.name}=={self.version}" if self.url is None else f"{self.name} @ {self.url}"
        return " \\\n    --hash=".join((wanted, *self.hashes)) + "\n"


@dataclass(frozen=True, slots=True)
class EnvironmentLock:
    """A resolved environment.

    Attributes:
        kind: Whether it is used as it is, or built, and by whom.
        spec_fingerprint: Of the specification that it answers; empty for ``current``.
        python_version: Full version; None for a conda environment without Python.
        implementation: ``cpython`` or another.
        packages: What is in it on this machine.
        text: The lock as it is stored and logged: the same bytes for the same resolution, with no credentials, paths or
            dates.
        identity: What of it decides whether two built environments are the same; None means all of the text. A
            conda-lock file holds other platforms too, and where packages lie, which changes nothing here.
        image: The container image whose own environment it is; None for the other kinds.
        sources: Where an installation looks for the packages. Not part of the lock: hashes say what they are.
    """

    kind: EnvironmentKind
    spec_fingerprint: str
    python_version: str | None
    implementation: str
    packages: tuple[LockedPackage, ...]
    text: str
    identity: str | None = None
    image: str | None = None
    sources: Sources = field(default_factory=Sources, repr=False, compare=False)

    @property
    def key(self) -> str:
        """The environment key, 64 hexadecimal digits: packages, Python and platform."""
        return hashlib.sha256((self.text if self.identity is None else self.identity).encode("utf-8")).hexdigest()

    @property
    def file_name(self) -> str:
        """What the text is called where it is logged."""
        return LOCK_FILES[self.kind]

    @property
    def mlflow_version(self) -> str | None:
        """The version of mlflow, or of mlflow-skinny where only that is; None means that the job cannot track."""
        return self.version_of("mlflow") or self.version_of("mlflow-skinny")

    def version_of(self, name: str) -> str | None:
        """The locked version of a package by its canonical name; None when it is not there."""
        return next((package.version for package in self.packages if package.name == name), None)
