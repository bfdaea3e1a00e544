"""Descriptions of JSON, to hold requests against: which keys there are, what they may hold, which must be there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Problem(NamedTuple):
    """One thing that is not as described."""

    where: str
    """The path, like ``properties.command``."""
    words: str


class Shape:
    """What a value may be; null is always taken for absent."""

    def problems(self, value: Any, where: str) -> Iterator[Problem]:
        """What is wrong with a value that is not null."""
        del value, where
        return iter(())


ANYTHING = Shape()
"""Any JSON at all."""


@dataclass(frozen=True)
class Text(Shape):
    """A text.

    Attributes:
        choices: The texts that it may be, compared without regard to case as the service does; empty: any.
        pattern: A regular expression that it must match somewhere; empty: any.
        scalars: Whether numbers and truth values are taken too, as text.
    """

    choices: tuple[str, ...] = ()
    pattern: str = ""
    scalars: bool = False

    def problems(self, value: Any, where: str) -> Iterator[Problem]:
        """See `Shape`."""
        if self.scalars and isinstance(value, (bool, int, float)):
            return
        if not isinstance(value, str):
            yield Problem(where, f"{where} must be a string, not {_kind(value)}.")
        elif self.choices and value.lower() not in {one.lower() for one in self.choices}:
            yield Problem(where, f"{where} is '{value}'; it can be {', '.join(self.choices)}.")
        elif not re.search(self.pattern, value):
            yield Problem(where, f"{where} is '{value}', which does not match {self.pattern}.")


@dataclass(frozen=True)
class Plain(Shape):
    """A number or a truth value: ``kind`` is ``int``, ``float`` or ``bool``."""

    kind: type

    def problems(self, value: Any, where: str) -> Iterator[Problem]:
        """See `Shape`."""
        taken = (int, float) if self.kind is float else self.kind
        if not isinstance(value, taken) or (isinstance(value, bool) and self.kind is not bool):
            wanted = {int: "an integer", float: "a number", bool: "true or false"}[self.kind]
            yield Problem(where, f"{where} must be {wanted}, not {_kind(value)}.")


@dataclass(frozen=True)
class MapOf(Shape):
    """An object with keys of the caller's choice."""

    of: Shape

    def problems(self, value: Any, where: str) -> Iterator[Problem]:
        """See `Shape`."""
        if not isinstance(value, Mapping):
            yield Problem(where, f"{where} must be an object, not {_kind(value)}.")
            return
        for key, one in value.items():
            if one is not None:
                yield from self.of.problems(one, f"{where}.{key}")


@dataclass(frozen=True)
class ListOf(Shape):
    """A list."""

    of: Shape

    def problems(self, value: Any, where: str) -> Iterator[Problem]:
        """See `Shape`."""
        if not isinstance(value, list):
            yield Problem(where, f"{where} must be a list, not {_kind(value)}.")
            return
        for place, one in enumerate(value):
            if one is not None:
                yield from self.of.problems(one, f"{where}[{place}]")


@dataclass(frozen=True)
class Record(Shape):
    """An object with the keys that the specification names.

    Attributes:
        keys: What each may hold.
        required: Which must be there.
        by: The key whose value says which of ``variants`` adds its keys; empty: none does.
        variants: What else there is, by that value.
    """

    keys: Mapping[str, Shape]
    required: tuple[str, ...] = ()
    by: str = ""
    variants: Mapping[str, Record] = field(default_factory=dict)

    def problems(self, value: Any, where: str) -> Iterator[Problem]:
        """See `Shape`."""
        if not isinstance(value, Mapping):
            yield Problem(where, f"{where or 'The body'} must be an object, not {_kind(value)}.")
            return
        keys, required = dict(self.keys), self.required
        if self.by:
            keys[self.by], required = Text(tuple(self.variants)), (*required, self.by)
            told = str(value.get(self.by)).lower()
            for name, variant in self.variants.items():
                if name.lower() == told:
                    keys, required = {**keys, **variant.keys}, (*required, *variant.required)
        for name in required:
            if value.get(name) is None:
                yield Problem(_at(where, name), f"The {name[0].upper()}{name[1:]} field is required.")
        for name, one in value.items():
            if name not in keys:
                yield Problem(_at(where, name), f"{_at(where, name)} is not in the published specification.")
            elif one is not None:
                yield from keys[name].problems(one, _at(where, name))


def _at(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false"}
    return "null" if value is None else names.get(type(value), "a number")
