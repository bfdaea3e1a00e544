"""From what the user wrote, in several places, to one ``BackendConfig``; or to one error with every mistake.

::

    user's file < project's file < profile < backend_config        each overrides the ones before it
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from mlflow_azure_backend.config.defaults import FILE_NAME, DefaultsFile, read_defaults
from mlflow_azure_backend.config.foreign import MlflowOptions, split_mlflow_options, translate_incumbent
from mlflow_azure_backend.config.problems import Problem, nearest, problems_of, quoted, shown
from mlflow_azure_backend.config.schema import BackendConfig
from mlflow_azure_backend.config.targets import not_honoured, refusal, unsuitable
from mlflow_azure_backend.errors import ConfigError

if TYPE_CHECKING:
    from mlflow_azure_backend.config.blocks import TargetName

PROFILE_VARIABLE: Final = "MLFLOW_AZURE_PROFILE"
_LARGEST_ARGUMENT_FILE: Final = 2**20
_LONGEST_KEY: Final = 100
_EXAMPLE: Final = 'an example: {"compute": "docker"}'


@dataclass(frozen=True, slots=True)
class Layer:
    """One place where keys were written.

    Attributes:
        values: The keys, ours only.
        file: The file that holds them; None for ``backend_config``.
        prefix: The keys that lead to them in the file.
    """

    values: Mapping[str, Any]
    file: DefaultsFile | None = None
    prefix: tuple[str, ...] = ()

    @property
    def is_default(self) -> bool:
        """True for keys that stand in a file for every run, which nobody asked for in this one."""
        return self.file is not None and not self.prefix

    def place(self, path: tuple[str, ...]) -> str:
        """Where the keys of ``path`` are: ``FILE:LINE: `` or nothing for ``backend_config``."""
        if self.file is None:
            return ""
        whole = (*self.prefix, *path)
        known = (self.file.lines.get(whole[:length]) for length in range(len(whole), 0, -1))
        line = next((line for line in known if line is not None), None)
        return f"{self.file.path}: " if line is None else f"{self.file.path}:{line}: "

    def key(self, path: tuple[str, ...]) -> str:
        """The key of ``path`` as its reader would look for it: ``FILE:LINE: profiles.NAME.KEY``."""
        key = ".".join((*self.prefix, *path))
        return self.place(path) + (key if key.isprintable() and len(key) <= _LONGEST_KEY else quoted(key))

    def report(self, problem: Problem) -> str:
        """A problem with the keys of this layer, with its place."""
        key = self.key(problem.path)
        return f"{key}: {problem.text}" if key else problem.text


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """A configuration and how it came about.

    Attributes:
        config: What is to be done.
        mlflow: What the user told MLflow itself.
        notes: What the user should hear, a line each: old keys, the default compute, keys that were set aside.
        sources: The files that were read, the one that gives way first.
        origins: Where each key was written, by its path.
    """

    config: BackendConfig
    mlflow: MlflowOptions
    notes: tuple[str, ...]
    sources: tuple[Path, ...]
    origins: Mapping[tuple[str, ...], Layer] = field(default_factory=dict, repr=False)

    def for_target(self, target: TargetName) -> LoadedConfig:
        """Leave only what ``target`` can honour.

        A key that was asked for is refused; one that a file holds for every run is set aside, and a note says so.

        Raises:
            ConfigError: A key of ``backend_config`` or of the chosen profile cannot be honoured; names all of them.
        """
        values = self.config.model_dump(exclude_unset=True)
        notes, refused = [], []
        for path, targets in not_honoured(self.config, target):
            origin = _origin(self.origins, path)
            said = unsuitable(origin.key(path), targets)
            if origin.is_default:
                _remove(values, path)
                notes.append(f"{said}: set aside for {target}")
            else:
                refused.append(said)
        if refused:
            raise refusal(refused, target)
        config = BackendConfig.model_validate(values) if notes else self.config
        return replace(self, config=config, notes=(*self.notes, *notes))


def load_config(raw: Mapping[str, Any], *, project_folder: Path | None, environ: Mapping[str, str]) -> LoadedConfig:
    """Read a ``backend_config`` with its defaults.

    Args:
        raw: As MLflow hands it over, its own keys mixed in; it is not changed.
        project_folder: Where ``mlflow-azure.yaml`` is looked for, and above; None for nowhere.
        environ: The client's environment.

    Raises:
        ConfigError: One line with every mistake, each with its key, and its file and line when it is in a file.
    """
    if not isinstance(raw, Mapping):
        raise ConfigError(f"expected an object, got {shown(raw, ())}", where="backend_config", next_step=_EXAMPLE)
    asked, mlflow = split_mlflow_options(raw)
    files, notes = read_defaults(project_folder, environ)
    problems: list[str] = []
    layers = []
    for layer in _layers(asked, files, environ, problems):
        values, said, mistakes = translate_incumbent(layer.values)
        layers.append(replace(layer, values=values))
        notes += [layer.place(()) + note for note in said]
        problems += [layer.report(mistake) for mistake in mistakes]
    merged, origins = _merge(layers)
    try:
        config = BackendConfig.model_validate(merged)
    except ValidationError as error:
        problems += [_origin(origins, problem.path).report(problem) for problem in problems_of(error)]
    if problems:
        everywhere = any(layer.file is not None for layer in layers)
        raise ConfigError("; ".join(problems), where=None if everywhere else "backend_config")
    if config.profile is not None and "profile" not in asked:
        notes.append(f"profile: {config.profile}")
    return LoadedConfig(config, mlflow, tuple(notes), tuple(file.path for file in files), origins)


def read_config_argument(text: str) -> dict[str, Any]:
    """Read what a user gave to ``-c``: the path of a ``.json`` or ``.yaml`` file, or the JSON itself.

    Raises:
        ConfigError: There is no such file, or it is not what it should be; names the line and column.
    """
    if text.lstrip().startswith(("{", "[", '"')):
        return _parse_json(text, "backend_config")
    path = Path(text)
    suffix = path.suffix.lower()
    if suffix in (".yaml", ".yml"):
        from mlflow_azure_backend.config.yaml_file import read_yaml

        return read_yaml(path)[0]
    if suffix != ".json":
        raise ConfigError(
            f"expected a .json or .yaml file, or JSON itself, got {shown(text, ())}",
            where="backend_config",
            next_step=_EXAMPLE,
        )
    try:
        with path.open("rb") as stream:
            content = stream.read(_LARGEST_ARGUMENT_FILE + 1)
        if len(content) > _LARGEST_ARGUMENT_FILE:
            raise ConfigError("is larger than 1 MiB", where=path)
        return _parse_json(content.decode("utf-8-sig"), str(path))
    except UnicodeDecodeError:
        raise ConfigError("is not UTF-8", where=path, next_step="save it as UTF-8") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"cannot be read: {reason}", where=path, next_step=_EXAMPLE) from None


def _parse_json(text: str, where: str) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        known: dict[str, Any] = {}
        for key, value in pairs:
            if key in known:
                raise ConfigError(f"the key {quoted(key)} is there twice", where=where)
            known[key] = value
        return known

    try:
        value = json.loads(text, object_pairs_hook=once)
    except json.JSONDecodeError as error:
        place = f"{where}:{error.lineno}:{error.colno}"
        raise ConfigError(f"is not JSON: {error.msg.lower()}", where=place, next_step=_EXAMPLE) from None
    except RecursionError:
        raise ConfigError("is nested too deeply", where=where) from None
    except ValueError:
        raise ConfigError("holds a number with too many digits", where=where) from None
    if not isinstance(value, dict):
        raise ConfigError(f"expected an object, got {shown(value, ())}", where=where, next_step=_EXAMPLE)
    return value


def _layers(
    asked: Mapping[str, Any], files: list[DefaultsFile], environ: Mapping[str, str], problems: list[str]
) -> list[Layer]:
    """The places, each overriding the ones before it; what is wrong with the profiles goes to ``problems``."""
    bottom, named = [], []
    for file in files:
        values = {key: _anchored(key, value, file.path.parent) for key, value in file.values.items()}
        profiles = values.pop("profiles", None) or {}
        bottom.append(Layer(values, file))
        if not isinstance(profiles, Mapping):
            problem = Problem(("profiles",), f"expected names with their keys, got {shown(profiles, ())}")
            problems.append(bottom[-1].report(problem))
            continue
        named += [_profile(name, keys, file, problems) for name, keys in profiles.items()]
    top = Layer({"profile": environ[PROFILE_VARIABLE], **asked} if environ.get(PROFILE_VARIABLE) else asked)
    if "profiles" in asked:
        problems.append(f"profiles: belong in {FILE_NAME}, not in backend_config")
        top = Layer({key: value for key, value in top.values.items() if key != "profiles"})
    places = (top, *reversed(bottom))
    wanted = next((layer.values["profile"] for layer in places if "profile" in layer.values), None)
    chosen = [layer for layer in named if layer.prefix[1] == wanted]
    if isinstance(wanted, str) and wanted.strip() and not chosen:
        problems.append(_unknown_profile(wanted, [layer.prefix[1] for layer in named], files))
    return [*bottom, *chosen, top]


def _profile(name: str, keys: Any, file: DefaultsFile, problems: list[str]) -> Layer:
    layer = Layer({}, file, ("profiles", name))
    if not isinstance(keys, Mapping):
        problems.append(layer.report(Problem((), f"expected keys and values, got {shown(keys, ())}")))
        return layer
    for key in ("profile", "profiles"):
        if key in keys:
            problems.append(layer.report(Problem((key,), "a profile cannot hold another one")))
    values = {key: value for key, value in keys.items() if key not in ("profile", "profiles")}
    return replace(layer, values={key: _anchored(key, value, file.path.parent) for key, value in values.items()})


def _unknown_profile(wanted: str, known: list[str], files: Iterable[DefaultsFile]) -> str:
    read = " and ".join(str(file.path) for file in files)
    names = ", ".join(sorted(set(known)))
    if not read:
        return (
            f"profile: {quoted(wanted)} is not defined: there is no {FILE_NAME} in or above the project, nor of yours"
        )
    return f"profile: {quoted(wanted)} is not defined in {read}{nearest(wanted, known)} (defined: {names or 'none'})"


def _anchored(key: str, value: Any, folder: Path) -> Any:
    """Make the relative paths in a file's value start at the file's folder; URIs stay."""
    if key == "workspace" and isinstance(value, str):
        return _from(folder, value)
    if key in ("inputs", "outputs") and isinstance(value, Mapping):
        return {
            name: {**item, "path": _from(folder, item["path"])}
            if isinstance(item, Mapping) and isinstance(item.get("path"), str)
            else item
            for name, item in value.items()
        }
    return value


def _from(folder: Path, path: str) -> str:
    return path if not path.strip() or "://" in path or path.startswith("azureml:") else str(folder / path)


def _merge(layers: Iterable[Layer]) -> tuple[dict[str, Any], dict[tuple[str, ...], Layer]]:
    """One mapping of all keys, and the layer that each came from; objects are merged one level deep, null removes."""
    merged: dict[str, Any] = {}
    origins: dict[tuple[str, ...], Layer] = {}
    for layer in layers:
        for key, value in layer.values.items():
            below = merged.get(key)
            if not (isinstance(value, Mapping) and isinstance(below, Mapping)):
                origins = {path: origin for path, origin in origins.items() if path[0] != key}
                below = {}
            if value is None and key in BackendConfig.model_fields:
                merged.pop(key, None)
                continue
            origins[(key,)] = layer
            merged[key] = value
            if isinstance(value, Mapping):
                merged[key] = {**below, **value}
                origins.update(dict.fromkeys(((key, inner) for inner in value), layer))
    return merged, origins


def _origin(origins: Mapping[tuple[str, ...], Layer], path: tuple[str, ...]) -> Layer:
    """The layer of ``path`` or of the longest beginning of it; ``backend_config`` when there is none."""
    return next((origins[path[:end]] for end in range(len(path), 0, -1) if path[:end] in origins), Layer({}))


def _remove(values: dict[str, Any], path: tuple[str, ...]) -> None:
    """Take the value at ``path`` away, and the objects that it leaves empty."""
    key, *rest = path
    if rest:
        _remove(values[key], tuple(rest))
    if not rest or not values[key]:
        del values[key]
