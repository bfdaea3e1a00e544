"""How the single values of a backend configuration are written: durations, sizes, names and references."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

_LONGEST_DURATION: Final = 365 * 86400.0
_LARGEST_SIZE: Final = 2**60
_DURATION: Final = re.compile(r"(?:([\d.]+)d)?(?:([\d.]+)h)?(?:([\d.]+)m)?(?:([\d.]+)s)?", re.ASCII | re.IGNORECASE)
_DURATION_UNITS: Final = (86400, 3600, 60, 1)
_SIZE: Final = re.compile(r"([\d.]+) ?([a-z]*)", re.ASCII | re.IGNORECASE)
_SIZE_UNITS: Final = {
    **{unit: 1000**power for power, unit in enumerate(("b", "kb", "mb", "gb", "tb"))},
    **{unit: 1024**power for power, unit in enumerate(("kib", "mib", "gib", "tib"), start=1)},
    # The one-letter units are docker's, which Azure ML's shm_size has taken over; docker counts them in 1024s.
    **{unit: 1024**power for power, unit in enumerate(("k", "m", "g", "t"), start=1)},
}
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SECRET_REFERENCE: Final = re.compile(rf"env:{_VARIABLE.pattern}")
_COMPUTE_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_ENVIRONMENT: Final = re.compile(r"azureml:[A-Za-z0-9][\w.-]{0,254}(?:@latest|:[A-Za-z0-9][\w.-]{0,254})", re.ASCII)
_RESOURCE_NAME: Final = re.compile(r"[\w.()-]{1,260}")
_PLACES: Final = ("local", "docker", "serverless")


def expected(what: str) -> PydanticCustomError:
    """The mistake of a value that is not ``what``; the reader is told what came instead, when that may be shown."""
    return PydanticCustomError("expected", "expected {what}", {"what": what})


def refused(why: str) -> PydanticCustomError:
    """The mistake of a value that is well written but cannot be; ``why`` says it all."""
    return PydanticCustomError("refused", "{why}", {"why": why})


def _duration(value: Any) -> float:
    """Seconds, from a number or from text such as ``1h30m``."""
    mistake = expected('a duration such as "2h", "90m" or "1h30m", or a number of seconds')
    match value:
        case bool():
            raise mistake
        case int() | float():
            # An integer may be too large for a float; as a duration it is too long long before.
            seconds = float(value) if abs(value) < _LARGEST_SIZE or isinstance(value, float) else math.inf
        case str() if value.strip() and (parts := _DURATION.fullmatch("".join(value.split()))):
            try:
                seconds = sum(
                    float(part or 0) * unit for part, unit in zip(parts.groups(), _DURATION_UNITS, strict=True)
                )
            except ValueError:  # "1.2.3h"
                raise mistake from None
        case _:
            raise mistake
    if not 0 < seconds <= _LONGEST_DURATION:
        raise expected("a duration of more than 0 seconds and at most 365d")
    return seconds


def _size(value: Any) -> int:
    """Bytes, from a number or from text such as ``300MB`` or ``2g``."""
    mistake = expected('a size such as "300MB", "500MiB" or "2g", or a number of bytes')
    match value:
        case bool():
            raise mistake
        case int():
            size: float = value
        case str() if (parts := _SIZE.fullmatch(value.strip())) and (parts[2].lower() or "b") in _SIZE_UNITS:
            try:
                size = float(parts[1]) * _SIZE_UNITS[parts[2].lower() or "b"]
            except ValueError:
                raise mistake from None
        case _:
            raise mistake
    if not 1 <= size <= _LARGEST_SIZE:
        raise expected("a size of at least 1 byte and less than an exabyte")
    return int(size)


def _compute_name(value: Any) -> str:
    """``local``, ``docker``, ``serverless`` or a compute's name; ``azureml:NAME`` is how ``az ml`` writes the last."""
    name = value.removeprefix("azureml:") if isinstance(value, str) else ""
    if name.lower() in _PLACES and name not in _PLACES:
        raise expected(f'"{name.lower()}" in lower case')
    if not _COMPUTE_NAME.fullmatch(name):
        raise expected('"local", "docker", "serverless", the name of a compute such as "cpu-cluster", or an object')
    return name


def _environment_reference(value: Any) -> str:
    if not isinstance(value, str) or (value != "current" and not _ENVIRONMENT.fullmatch(value)):
        raise expected('"current", "azureml:NAME@latest", "azureml:NAME:VERSION" or an object such as {"image": …}')
    return value


def _variable_name(value: str) -> str:
    if not _VARIABLE.fullmatch(value):
        raise expected('the name of a variable, such as "DATA_FOLDER" (letters, digits, underscores)')
    return value


def _secret_reference(value: Any) -> str:
    if not isinstance(value, str) or not _SECRET_REFERENCE.fullmatch(value):
        raise expected('a reference such as "env:MY_TOKEN"; a secret itself must not stand in a configuration')
    return value


def _written(value: Any) -> str:
    """Text; a number or a boolean becomes the text that JSON writes for it."""
    if isinstance(value, bool | int | float) and not (isinstance(value, float) and not math.isfinite(value)):
        value = json.dumps(value)
    if not isinstance(value, str):
        raise expected("text, a number, true or false")
    return _portable(value)


def _gpus(value: Any) -> int | str:
    if value == "all":
        return "all"
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise expected('a number of GPUs or "all"')


def _portable(value: str) -> str:
    """Refuse what neither a process's environment nor JSON can carry."""
    if "\0" in value:
        raise refused("must not hold a NUL character")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise refused("must be valid Unicode") from None
    return value


def _not_blank(value: str) -> str:
    if not value.strip():
        raise refused("must not be empty")
    return _portable(value)


def _one_line(value: str) -> str:
    if not value.isprintable():
        raise refused("must be one line of printable characters")
    return _not_blank(value)


def _resource_name(value: str) -> str:
    if not _RESOURCE_NAME.fullmatch(value):
        raise expected("a name as the Azure portal shows it (letters, digits, . _ - and brackets)")
    return value


def _path(value: Any) -> Any:
    """Take a ``pathlib.Path`` where Python code gives one."""
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _words(value: Any) -> Any:
    """Split a line of arguments as a POSIX shell would; a list is taken as it is."""
    if not isinstance(value, str):
        return value
    try:
        return shlex.split(value)
    except ValueError as error:
        raise expected(f"arguments as a shell takes them ({str(error).lower()})") from None


Duration = Annotated[
    float,
    BeforeValidator(_duration),
    WithJsonSchema({"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string"}]}),
]
"""Seconds."""
Size = Annotated[
    int,
    BeforeValidator(_size),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string"}]}),
]
"""Bytes."""
Text = Annotated[str, Field(min_length=1), AfterValidator(_not_blank)]
"""Text that says something."""
Line = Annotated[str, Field(min_length=1, max_length=250), AfterValidator(_one_line)]
"""One printable line of at most 250 characters."""
PathText = Annotated[str, BeforeValidator(_path), Field(min_length=1), AfterValidator(_not_blank)]
"""A path or a URI, as text."""
Written = Annotated[
    str, BeforeValidator(_written), WithJsonSchema({"type": ["string", "number", "boolean"], "title": "Value"})
]
"""Text, also from a number or a boolean."""
VariableName = Annotated[
    str, AfterValidator(_variable_name), Field(json_schema_extra={"pattern": f"^{_VARIABLE.pattern}$"})
]
"""A name that environment variables, inputs and outputs may have."""
SecretReference = Annotated[
    str,
    BeforeValidator(_secret_reference),
    WithJsonSchema({"type": "string", "pattern": f"^{_SECRET_REFERENCE.pattern}$", "examples": ["env:MY_TOKEN"]}),
]
"""``env:NAME``: the secret is the client's environment variable ``NAME``."""
ResourceName = Annotated[str, AfterValidator(_resource_name)]
"""The name or id of an Azure resource."""
ComputeName = Annotated[str, BeforeValidator(_compute_name)]
"""Where to run: ``local``, ``docker``, ``serverless`` or the name of an Azure ML compute."""
EnvironmentReference = Annotated[str, BeforeValidator(_environment_reference)]
"""``current`` or a registered Azure ML environment."""
Gpus = Annotated[
    int | Literal["all"],
    BeforeValidator(_gpus),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0}, {"const": "all"}]}),
]
"""A number of GPUs, or all of them."""
Arguments = Annotated[
    tuple[Annotated[str, AfterValidator(_portable)], ...],
    BeforeValidator(_words),
    Field(strict=False),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]
"""Arguments of a command, from one line or a list."""
Texts = Annotated[tuple[Text, ...], Field(strict=False)]
"""A list of texts; JSON has no tuples, so a list is taken here although the models are strict."""
