"""Which keys a compute target can honour; each key says it itself, in ``schema.py``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from mlflow_azure_backend.config.blocks import Block, TargetName
from mlflow_azure_backend.errors import ConfigError

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from mlflow_azure_backend.config.schema import BackendConfig


def check_honoured(config: BackendConfig, target: TargetName) -> None:
    """Refuse every key that was given and that ``target`` would have to ignore.

    Raises:
        ConfigError: Names all of them, each with the targets where it works.
    """
    if keys := [unsuitable(".".join(path), targets) for path, targets in not_honoured(config, target)]:
        raise refusal(keys, target)


def unsuitable(key: str, targets: tuple[TargetName, ...]) -> str:
    """A key that a target cannot honour, and where it works."""
    return f"{key} (works on {' and '.join(targets)})"


def refusal(keys: list[str], target: TargetName) -> ConfigError:
    """The error that names all ``keys`` that ``target`` cannot honour."""
    return ConfigError(
        f"{target} cannot honour {'; '.join(keys)}",
        where="backend_config",
        next_step=f"remove {'it' if len(keys) == 1 else 'them'} or choose another compute",
    )


def not_honoured(block: Block, target: TargetName) -> Iterator[tuple[tuple[str, ...], tuple[TargetName, ...]]]:
    """The keys given in ``block`` that ``target`` cannot honour, and the targets that can.

    A key counts as given when it was written, be it with its default; one whose whole block is refused is not named
    beside it.
    """
    for name in sorted(block.model_fields_set, key=list(type(block).model_fields).index):
        value = getattr(block, name)
        targets = _targets(type(block).model_fields[name], value)
        if targets is not None and target not in targets:
            yield (name,), targets
            continue
        inner = value if isinstance(value, Mapping) else {None: value}
        for key, item in inner.items():
            if isinstance(item, Block):
                here = (name,) if key is None else (name, key)
                yield from ((here + path, where) for path, where in not_honoured(item, target))


def _targets(field: FieldInfo, value: Any) -> tuple[TargetName, ...] | None:
    """The targets that can honour ``value`` in ``field``; None when the block around the field decides."""
    said = field.json_schema_extra
    if not isinstance(said, dict):
        return None
    targets = cast("list[TargetName]", said["targets"])
    for prefix, narrowed in cast("dict[str, list[TargetName]]", said.get("targets_of_values", {})).items():
        if isinstance(value, str) and value.startswith(prefix):
            targets = [target for target in targets if target in narrowed]
    return tuple(targets)
