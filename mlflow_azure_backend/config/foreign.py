"""Keys in a ``backend_config`` that are not ours: MLflow's own, which arrive mixed in, and azureml-mlflow's."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import SecretStr

from mlflow_azure_backend.config.problems import Problem, shown
from mlflow_azure_backend.errors import ConfigError

_PRIVATE_PREFIX: Final = "_mlflow_"
_TRUE: Final = frozenset({"true", "1", "yes", "on"})
_FALSE: Final = frozenset({"false", "0", "no", "off"})


@dataclass(frozen=True, slots=True)
class MlflowOptions:
    """What the user told MLflow itself; MLflow puts it into the ``backend_config`` (``mlflow.projects.utils``, 3.17).

    Attributes:
        env_manager: ``--env-manager``; None when the user did not choose.
        synchronous: The caller wants to wait; always False from ``mlflow run``, which never waits for plugins.
        docker_args: ``--docker-args``: name to value, True for a flag.
        storage_dir: ``--storage-dir``: where remote ``path`` parameters are downloaded to; None when not chosen.
        build_image: ``--build-image``.
        docker_auth: Registry login for the docker SDK; None when there is none.
    """

    env_manager: str | None = None
    synchronous: bool = True
    docker_args: Mapping[str, str | bool] = field(default_factory=dict)
    storage_dir: Path | None = None
    build_image: bool = False
    docker_auth: Mapping[str, SecretStr] | None = None


def split_mlflow_options(raw: Mapping[str, Any]) -> tuple[dict[str, Any], MlflowOptions]:
    """Part a ``backend_config`` into the keys that MLflow did not put there, and MLflow's own.

    MLflow's private keys (``_mlflow_…``) are dropped: they speak to its built-in backends.

    Raises:
        ConfigError: One of MLflow's keys has a value that MLflow would not give; names all of them.
    """
    readers: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
        "ENV_MANAGER": ("env_manager", _text),
        "SYNCHRONOUS": ("synchronous", _flag),
        "DOCKER_ARGS": ("docker_args", _docker_args),
        "STORAGE_DIR": ("storage_dir", _folder),
        "build_image": ("build_image", _flag),
        "docker_auth": ("docker_auth", _docker_auth),
    }
    options: dict[str, Any] = {}
    problems = []
    for key, (name, read) in readers.items():
        value = raw.get(key)
        if value is None:
            continue
        try:
            options[name] = read(value)
        except TypeError as error:
            problems.append(f"{key}: expected {error}, got {shown(value, (key,))}")
    if problems:
        raise ConfigError("; ".join(problems), where="backend_config", next_step="MLflow sets these keys: remove them")
    rest = {
        key: value
        for key, value in raw.items()
        if key not in readers and not (isinstance(key, str) and key.startswith(_PRIVATE_PREFIX))
    }
    return rest, MlflowOptions(**options)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("text")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError("true or false")
    return value


def _folder(value: Any) -> Path | None:
    if not isinstance(value, str | os.PathLike):
        raise TypeError("a folder")
    return Path(value) if os.fspath(value) else None


def _docker_args(value: Any) -> Mapping[str, str | bool]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise TypeError("an object of arguments")
    return dict(value)


def _docker_auth(value: Any) -> Mapping[str, SecretStr]:
    if not isinstance(value, Mapping) or not all(isinstance(text, str) for pair in value.items() for text in pair):
        raise TypeError("an object of texts")
    return {key: SecretStr(text) for key, text in value.items()}


def translate_incumbent(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str], list[Problem]]:
    """Say azureml-mlflow's keys in ours: ``COMPUTE``, ``USE_CONDA`` and ``STREAM_OUTPUT`` (all that its 1.62 reads).

    Returns:
        The values in our keys, one note for each old key, and what cannot be translated or contradicts a new key.
    """
    values = dict(values)
    notes: list[str] = []
    problems: list[Problem] = []
    if "COMPUTE" in values:
        old = values.pop("COMPUTE")
        # It ran on the client when the name was missing, empty, "local" or "LOCAL".
        compute = "local" if old in (None, "", "LOCAL") else old
        notes.append(f'COMPUTE is now "compute": {shown(compute, ("compute",))}')
        if values.setdefault("compute", compute) != compute:
            problems.append(Problem(("COMPUTE",), "contradicts compute (keep compute)"))
    for key, translate in (("USE_CONDA", _use_conda), ("STREAM_OUTPUT", _stream_output)):
        if key not in values:
            continue
        old = values.pop(key)
        if (switch := _switch(old)) is None:
            problems.append(Problem((key,), f"expected true or false, got {shown(old, (key,))}"))
        else:
            translate(switch, values, notes, problems)
    return values, notes, problems


def _switch(value: Any) -> bool | None:
    """A boolean, also from the strings that its users wrote for one; None for anything else."""
    word = str(value).strip().lower() if isinstance(value, bool | int | str) else ""
    return True if word in _TRUE else False if word in _FALSE else None


def _use_conda(switch: bool, values: dict[str, Any], notes: list[str], problems: list[Problem]) -> None:
    environment = values.get("environment")
    if switch:
        notes.append('USE_CONDA: true is the default now: leave "environment" out')
        if environment == "current":
            problems.append(Problem(("USE_CONDA",), 'true contradicts environment: "current" (keep environment)'))
    elif values.get("compute", "local") not in ("local", None):
        # It looked at USE_CONDA for runs on the client only, so configurations with both are about and worked.
        notes.append('USE_CONDA: false says nothing about a remote compute: leave "environment" out')
    else:
        notes.append('USE_CONDA: false is now "environment": "current"')
        if environment is not None and environment != "current":
            problems.append(Problem(("USE_CONDA",), "false contradicts environment (keep environment)"))
        values["environment"] = "current"


def _stream_output(switch: bool, values: dict[str, Any], notes: list[str], problems: list[Problem]) -> None:
    del values, problems
    notes.append(
        "STREAM_OUTPUT has no successor: output always streams to whoever waits"
        + ("" if switch else '; "detach": true returns at once')
    )
