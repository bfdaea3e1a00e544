"""Mistakes in a configuration, in words: where each is, what was expected, what came, and what was probably meant."""

from __future__ import annotations

import difflib
import re
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from mlflow_azure_backend.config.blocks import Block
from mlflow_azure_backend.config.schema import OBJECT_BRANCH, TEXT_BRANCH, BackendConfig

if TYPE_CHECKING:
    from pydantic import ValidationError

_HIDDEN_KEYS: Final = frozenset({"secrets", "environment_variables", "docker_auth"})
_SECRET_LOOKING: Final = re.compile(
    r"secret|token|passw|credential|api_?key|accountkey|sig=|bearer|:[^/]*@", re.IGNORECASE
)
_BRANCHES: Final = (TEXT_BRANCH, OBJECT_BRANCH)
_LONGEST_SHOWN: Final = 32
_LARGEST_SHOWN: Final = 10**15

_WORDS: Final[Mapping[str, str]] = {
    "string_type": "expected text",
    "string_unicode": "expected text in valid Unicode",
    "int_type": "expected a whole number such as 2",
    "int_from_float": "expected a whole number such as 2",
    "float_type": "expected a number such as 0.5",
    "finite_number": "expected a finite number",
    "bool_type": "expected true or false",
    "tuple_type": 'expected a list such as ["a", "b"]',
    "mapping_type": 'expected an object such as {{"key": "value"}}',
    "dict_type": 'expected an object such as {{"key": "value"}}',
    "model_type": 'expected an object such as {{"key": "value"}}',
    "model_attributes_type": 'expected an object such as {{"key": "value"}}',
    "missing": "is missing",
    "invalid_key": "a key must be text",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "string_too_short": "must not be empty",
    "string_too_long": "must have at most {max_length} characters",
    "literal_error": "expected {expected}",
    "expected": "expected {what}",
    "refused": "{why}",
}
"""Pydantic's kinds of mistake (https://docs.pydantic.dev/latest/errors/validation_errors/) in the user's words."""
_SAYS_ALL: Final = frozenset({"missing", "invalid_key", "refused", "string_too_short", "string_too_long"})
"""The kinds that are not made clearer by the value."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake.

    Attributes:
        path: The keys that lead to it; empty for the configuration as a whole.
        text: What is wrong there.
    """

    path: tuple[str, ...]
    text: str


def problems_of(error: ValidationError) -> list[Problem]:
    """Every mistake that pydantic found in a ``BackendConfig``."""
    found = []
    listed: set[type[Block]] = set()
    for mistake in error.errors(include_url=False):
        location = mistake["loc"]
        # The unions are all right below the top, so elsewhere a part that looks like a branch is the user's key.
        path = tuple(str(part) for depth, part in enumerate(location) if depth != 1 or part not in _BRANCHES)
        if mistake["type"] == "extra_forbidden":
            found.append(Problem(path, _unknown_key(path, listed)))
            continue
        text = _WORDS.get(mistake["type"], mistake["type"].replace("_", " ")).format_map(mistake.get("ctx", {}))
        if mistake["type"] == "string_type" and location[-1:] == (TEXT_BRANCH,):
            text = "expected text or an object"
        if mistake["type"] not in _SAYS_ALL:
            text += f", got {shown(mistake['input'], path)}"
        if mistake["type"] == "literal_error":
            text += nearest(mistake["input"], re.findall(r"'([^']*)'", mistake["ctx"]["expected"]))
        if len(path) > 2 and path[-1] == "[key]":  # the mistake is in the key itself
            path = path[:-2] if _HIDDEN_KEYS & set(path) else path[:-1]
        found.append(Problem(path, text))
    return found


def shown(value: Any, path: tuple[str, ...]) -> str:
    """A refused value for the eyes of whoever reads the log: only what is short and cannot well be a secret.

    Args:
        value: What stood there.
        path: The keys that lead to it; some never show their values.
    """
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case Mapping():
            return "an object"
        case list() | tuple():
            return "a list"
    if _HIDDEN_KEYS & set(path) or any(map(_SECRET_LOOKING.search, path)):
        return "a value that is not shown here"
    if isinstance(value, int | float) and abs(value) < _LARGEST_SHOWN:
        return str(value)
    if isinstance(value, str):
        quotable = len(value) <= _LONGEST_SHOWN and not _SECRET_LOOKING.search(value)
        return quoted(value) if quotable else f"text of {len(value)} characters"
    return f"a {type(value).__name__}"


def quoted(text: str) -> str:
    """Text that the user wrote, in quotes, on one line, and never the terminal's commands."""
    text = text if len(text) <= 2 * _LONGEST_SHOWN else text[: 2 * _LONGEST_SHOWN] + "…"
    return f'"{text}"' if text.isprintable() else ascii(text)


def nearest(word: Any, valid: Iterable[str]) -> str:
    """`` (nearest valid: x)`` for a word that is nearly one of ``valid``, else nothing."""
    if not isinstance(word, str):
        return ""
    folded = {name.casefold(): name for name in valid}
    match = difflib.get_close_matches(word[:_LONGEST_SHOWN].casefold(), folded, n=1)
    return f" (nearest valid: {folded[match[0]]})" if match else ""


def _unknown_key(path: tuple[str, ...], listed: set[type[Block]]) -> str:
    """What an unknown key is probably meant to be; when nothing is near, the valid ones, once for each block."""
    block = _block_at(path[:-1])
    key, valid = path[-1], block.model_fields
    if hint := nearest(key, valid):
        return f"unknown key{hint}"
    for name, field in BackendConfig.model_fields.items():
        inner = _block_in(field.annotation)
        if block is BackendConfig and inner is not None and key in inner.model_fields:
            return f"unknown key (nearest valid: {name}.{key})"
    if block in listed:
        return "unknown key"
    listed.add(block)
    return f"unknown key (valid: {', '.join(valid)})"


def _block_at(path: tuple[str, ...]) -> type[Block]:
    """The block that ``path`` leads to; names that the user chose, as of inputs, are passed over."""
    block: type[Block] = BackendConfig
    for key in path:
        field = block.model_fields.get(key)
        block = (_block_in(field.annotation) if field else None) or block
    return block


def _block_in(annotation: Any) -> type[Block] | None:
    if isinstance(annotation, type) and issubclass(annotation, Block):
        return annotation
    return next(filter(None, map(_block_in, typing.get_args(annotation))), None)
