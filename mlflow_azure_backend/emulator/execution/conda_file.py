"""What an environment's conda file asks for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import yaml

from mlflow_azure_backend.emulator.execution.ends import Refused

_HOST = "https://conda.anaconda.org"
_DEFAULTS = "https://repo.anaconda.com/pkgs/main"
"""What conda's channel ``defaults``, and a file without channels, stand for."""
_PYTHON = re.compile(r"python\s*(=|==|>=|~=)?\s*(?P<version>\d+\.\d+)?[\d.*]*$")


@dataclass(frozen=True)
class CondaFile:
    """One file, read.

    Attributes:
        specifications: Of conda packages, Python among them.
        channels: Their addresses, in order.
        packages: Requirements for pip.
        variables: To be set where the environment is used.
    """

    specifications: tuple[str, ...]
    channels: tuple[str, ...]
    packages: tuple[str, ...]
    variables: Mapping[str, str]

    @property
    def needs_conda(self) -> bool:
        """Whether it asks for conda packages beyond Python and pip."""
        return any(not _PYTHON.match(one) and not re.match(r"pip\b", one) for one in self.specifications)

    @property
    def requirements(self) -> str:
        """The requirements as a file of them."""
        return "".join(f"{line}\n" for line in self.packages)

    @property
    def python(self) -> str | None:
        """Python's version, ``3.11``; None: any."""
        for one in self.specifications:
            if found := _PYTHON.match(one):
                return found["version"]
        return None


def read(text: str, mirror: str) -> CondaFile:
    """Read a conda file.

    Args:
        text: YAML.
        mirror: What stands for ``https://conda.anaconda.org``; empty: itself.

    Raises:
        Refused: It is none.
    """
    try:
        told = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise Refused(f"the environment's conda file is no YAML: {' '.join(str(error).split())}") from None
    dependencies = told.get("dependencies") or [] if isinstance(told, dict) else None
    if not isinstance(dependencies, list):
        raise Refused("the environment's conda file has no list of dependencies; give dependencies: [python, …]")
    channels = [str(one) for one in told.get("channels") or ["defaults"] if one != "nodefaults"]
    return CondaFile(
        specifications=tuple(str(one) for one in dependencies if not isinstance(one, dict)),
        channels=tuple(_address(one, mirror or _HOST) for one in channels),
        packages=tuple(
            str(package) for one in dependencies if isinstance(one, dict) for package in one.get("pip") or []
        ),
        variables={str(name): str(value) for name, value in (told.get("variables") or {}).items()},
    )


def _address(channel: str, host: str) -> str:
    if channel == "defaults":
        return _DEFAULTS
    path = channel.removeprefix(_HOST)
    return channel if "://" in path else f"{host.rstrip('/')}/{path.strip('/')}"
