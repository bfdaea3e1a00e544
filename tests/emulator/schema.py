"""Microsoft's published schema, as its generated client carries it, against what goes over the wire.

``azure-mgmt-machinelearningservices`` is generated from the specification 2023-04-01: each model says its keys, their
types, which are required, and which subtype a discriminator means. Its own deserialiser forgives almost everything.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its docstrings have escapes that Python no longer likes
    from azure.mgmt.machinelearningservices import MachineLearningServicesMgmtClient, models

__all__ = ["MachineLearningServicesMgmtClient", "models", "problems"]

_PATTERNS = {
    "iso-8601": re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)"),
    "duration": re.compile(r"P(?=.)(\d+D)?(T(\d+H)?(\d+M)?(\d+(\.\d+)?S)?)?"),
}
_PLAIN: Mapping[str, type | tuple[type, ...]] = {
    "str": str,
    "bool": bool,
    "int": int,
    "long": int,
    "float": (int, float),
}


def problems(model: str, value: Any, *, newer: Iterable[str] = ()) -> list[str]:
    """What in a JSON document is not as the model says.

    Args:
        model: The class's name, like ``JobBase``.
        value: The document.
        newer: Keys that later versions of the specification brought, which this one cannot know.
    """
    return list(_object(model, value, model, frozenset(newer)))


def _object(model: str, value: Any, where: str, newer: frozenset[str]) -> Iterator[str]:
    if not isinstance(value, Mapping):
        yield f"{where}: {value!r} is no object"
        return
    kind = _subtype(getattr(models, model), value)
    attributes: Mapping[str, Mapping[str, str]] = kind._attribute_map
    by_key = {one["key"]: (name, one["type"]) for name, one in attributes.items()}
    for head in {
        key.partition(".")[0] for key in by_key if "." in key
    }:  # the client takes these for its own attributes
        value = {**value, **{f"{head}.{key}": one for key, one in (value.get(head) or {}).items()}}
        value.pop(head, None)
    for key in value:
        if key not in by_key and key.rpartition(".")[2] not in newer:
            yield f"{where}.{key}: {kind.__name__} has no such key"
    for key, (name, type_) in by_key.items():
        rule = kind._validation.get(name, {})
        found = value.get(key)
        if found is None:
            if rule.get("required"):
                yield f"{where}.{key}: is required"
        else:
            yield from _typed(type_, found, f"{where}.{key}", newer)
            if "pattern" in rule and not re.search(rule["pattern"], str(found)):
                yield f"{where}.{key}: {found!r} does not match {rule['pattern']}"


def _subtype(kind: Any, value: Mapping[str, Any]) -> Any:
    for name, subtypes in vars(kind).get("_subtype_map", {}).items():
        told = value.get(kind._attribute_map[name]["key"])
        if told in subtypes:
            return _subtype(getattr(models, subtypes[told]), value)
    return kind


def _typed(type_: str, value: Any, where: str, newer: frozenset[str]) -> Iterator[str]:
    if type_[0] in "{[":
        if not isinstance(value, Mapping if type_[0] == "{" else list):
            yield f"{where}: {value!r} is no {type_}"
            return
        for key, one in value.items() if isinstance(value, Mapping) else enumerate(value):
            if one is not None:
                yield from _typed(type_[1:-1], one, f"{where}.{key}", newer)
    elif type_ in _PLAIN:
        if not isinstance(value, _PLAIN[type_]) or (type_ != "bool" and isinstance(value, bool)):
            yield f"{where}: {value!r} is no {type_}"
    elif type_ in _PATTERNS:
        if not _PATTERNS[type_].fullmatch(str(value)):
            yield f"{where}: {value!r} is no {type_}"
    elif type_ != "object":
        yield from _object(type_, value, where, newer)
