"""gitignore patterns, asked one folder at a time.

A pattern is cut at its slashes, and each part is held against one name as the walk goes down. So a folder knows which
patterns can match a name in it, and most names are settled by two look-ups in a dictionary. The reading is git's own
(git 2.39, ``dir.c`` and ``wildmatch.c``; https://git-scm.com/docs/gitignore) but for two things: a ``?`` or a bracket
stands for one character where git says one byte, and a slash in a bracket separates. ``pathspec`` was tried first: it
differs from git inside brackets, fails on some of them, and takes three times as long.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


class Layer(Enum):
    """Which list a pattern stands in; within one layer the last pattern that matches decides."""

    SECRET = "secret"  # noqa: S105 (a word, not one)
    ALLOW = "allow"
    EXCLUDE = "exclude"
    INCLUDE = "include"
    BUILT_IN = "built-in"
    IGNORE_FILE = "ignore file"


@dataclass(frozen=True, slots=True, eq=False)
class NamePattern:
    """What one part of a pattern asks of one name.

    Attributes:
        text: As the user wrote it.
        outline: A regular expression for the whole name that misses no name that matches; None when no name can match,
            as git has it for an open bracket or a backslash at the end.
        literal: The only name that matches; None when there are more.
        extension: ``.csv`` for the pattern ``*.csv``; None for patterns of another form.
        matches: Whether a name matches.
    """

    text: str
    outline: str | None
    literal: str | None
    extension: str | None
    matches: Callable[[str], object] = field(repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class Pattern:
    """One line of an ignore file, or one entry of a list.

    Attributes:
        layer: The list that it stands in.
        where: What the user is told, such as ``src/.gitignore:3``.
        rank: A higher rank beats a lower one of the same layer.
        negated: The line begins with ``!``.
        folders_only: The line ends with a slash.
        parts: One per folder of the path and one for its last name; None stands for ``**``, any number of folders.
    """

    layer: Layer
    where: str
    rank: int
    negated: bool
    folders_only: bool
    parts: tuple[NamePattern | None, ...]

    @property
    def last(self) -> NamePattern:
        """What the pattern asks of the last name of a path."""
        part = self.parts[-1]
        assert part is not None, "parse() ends every pattern with a name"  # noqa: S101
        return part


_POSIX_CLASSES: Final = {
    "alnum": "a-zA-Z0-9",
    "alpha": "a-zA-Z",
    "blank": r" \t",
    "cntrl": r"\x00-\x1f\x7f",
    "digit": "0-9",
    "graph": r"\x21-\x7e",
    "lower": "a-z",
    "print": r"\x20-\x7e",
    "punct": r"\x21-\x2f\x3a-\x40\x5b-\x60\x7b-\x7e",
    "space": r" \t\n\r\f\v",
    "upper": "A-Z",
    "xdigit": "0-9a-fA-F",
}
_BRACKET_ITEM: Final = re.compile(
    r"\[:(?P<named>[^\]]*):\]|(?P<low>\\.|[^\\])-(?P<high>\\.|[^\\\]])|(?P<single>\\.|[^\\])", re.DOTALL
)
_NEVER: Final[Callable[[str], object]] = frozenset[str]().__contains__


class _MatchesNothing(ValueError):
    """Git lets such a pattern match no name."""


def _bracket(text: str, start: int) -> tuple[str, int]:
    """Translate the bracket whose first inner character is at ``start``; also say where the pattern goes on."""
    negated = text[start : start + 1] in ("!", "^")
    at = first = start + negated
    items = []
    while text[at : at + 1] != "]" or at == first:
        item = _BRACKET_ITEM.match(text, at)
        if item is None:
            raise _MatchesNothing(text)
        at = item.end()
        if item["named"] is not None:
            if item["named"] not in _POSIX_CLASSES:
                raise _MatchesNothing(text)
            items.append(_POSIX_CLASSES[item["named"]])
        elif item["single"] is not None:
            items.append(re.escape(item["single"][-1]))
        else:
            low, high = item["low"][-1], item["high"][-1]
            # Git compares the lower end by itself first, so that a range that runs backwards still holds it.
            items.append(f"{re.escape(low)}-{re.escape(high)}" if low <= high else re.escape(low))
    return f"[{'^' if negated else ''}{''.join(items)}]", at + 1


def _between_stars(text: str) -> list[str]:
    """Cut one part of a pattern at its stars, each piece a regular expression for a fixed number of characters."""
    pieces = [""]
    at = 0
    while at < len(text):
        character = text[at]
        at += 1
        if character == "*":
            pieces.append("")
        elif character == "?":
            pieces[-1] += "."
        elif character == "[":
            bracket, at = _bracket(text, at)
            pieces[-1] += bracket
        elif character == "\\":
            if at == len(text):
                raise _MatchesNothing(text)
            pieces[-1] += re.escape(text[at])
            at += 1
        else:
            pieces[-1] += re.escape(character)
    return pieces


def _matcher(pieces: list[str]) -> Callable[[str], object]:
    """Match each piece where it is first found; with `.*` for many stars, a regular expression can take for ever."""
    if len(pieces) == 1:
        return re.compile(pieces[0], re.DOTALL).fullmatch
    if not any(pieces[1:-1]):
        return re.compile(f"{pieces[0]}.*{pieces[-1]}", re.DOTALL).fullmatch
    start, *middle, end = (re.compile(piece, re.DOTALL) for piece in (*pieces[:-1], f".*{pieces[-1]}"))

    def matches(name: str) -> bool:
        found = start.match(name)
        for piece in middle:
            found = found and piece.search(name, found.end())
        return found is not None and end.fullmatch(name, found.end()) is not None

    return matches


def _name_pattern(text: str) -> NamePattern:
    if not text:
        return NamePattern(text, None, None, None, _NEVER)
    if not re.search(r"[*?\[\\]", text):
        return NamePattern(text, re.escape(text), text, None, text.__eq__)
    try:
        pieces = _between_stars(text)
    except _MatchesNothing:
        return NamePattern(text, None, None, None, _NEVER)
    only_extension = re.fullmatch(r"\*(\.[^*?\[\\.]*)", text)
    extension = only_extension[1] if only_extension else None
    outline = pieces[0] if len(pieces) == 1 else f"{pieces[0]}.*{pieces[-1]}"
    return NamePattern(text, outline, None, extension, _matcher(pieces))


def parse(line: str, *, layer: Layer, where: str, rank: int) -> Pattern | None:
    """Read one line as git does; None when it says nothing: blank, or a comment."""
    if line.startswith("#"):
        return None
    unpadded = re.fullmatch(r"((?:\\.|[^\\])*?) +", line, flags=re.DOTALL)
    text = unpadded[1] if unpadded else line
    negated = text.startswith("!")
    text = text[negated:]
    folders_only = text.endswith("/")
    text = text.removesuffix("/")
    if not text:
        return None
    anchored = "/" in text
    text = text.removeprefix("/")
    text = re.sub(r"\\(.)", lambda escaped: "/" if escaped[1] == "/" else escaped[0], text, flags=re.DOTALL)
    pieces = text.split("/") if anchored else ["**", text]
    parts: list[NamePattern | None] = []
    for piece in pieces:
        if piece.strip("*") or len(piece) < 2:
            parts.append(_name_pattern(piece))
        elif parts[-1:] != [None]:
            parts.append(None)
    if parts[-1] is None:
        parts.append(_name_pattern("*"))
    return Pattern(layer, where, rank, negated, folders_only, tuple(parts))


_Position = tuple[Pattern, int]
"""A pattern, and the part of it that the next name has to match."""


def _positions(pattern: Pattern, at: int) -> list[_Position]:
    """Where a pattern stands before its part ``at``: a ``**`` may also stand for no folder at all."""
    return [(pattern, at), (pattern, at + 1)] if pattern.parts[at] is None else [(pattern, at)]


class FolderPatterns:
    """The patterns that can match a name in one folder."""

    __slots__ = ("_below", "_by_extension", "_by_name", "_floating", "_glob", "_globs", "_positions", "_size")

    def __init__(
        self,
        floating: tuple[Pattern, ...] = (),
        positions: tuple[_Position, ...] = (),
        size: int = 0,
        below: dict[tuple[_Position, ...], FolderPatterns] | None = None,
    ) -> None:
        self._floating = floating  # a name at any depth: the same in every folder, and most patterns are of this kind
        self._positions = positions
        self._size = size
        self._below: dict[tuple[_Position, ...], FolderPatterns] = {positions: self} if below is None else below
        self._by_name: dict[str, list[Pattern]] = {}
        self._by_extension: dict[str, list[Pattern]] = {}
        self._globs: list[Pattern] = []
        for pattern in (*floating, *(pattern for pattern, at in positions if at == len(pattern.parts) - 1)):
            name = pattern.last
            if name.literal is not None:
                self._by_name.setdefault(name.literal, []).append(pattern)
            elif name.extension is not None:
                self._by_extension.setdefault(name.extension, []).append(pattern)
            elif name.outline is not None:
                self._globs.append(pattern)
        regex = "|".join(dict.fromkeys(str(pattern.last.outline) for pattern in self._globs))
        self._glob = re.compile(regex, re.DOTALL).fullmatch if regex else None

    def extended(self, lines: Iterable[tuple[str, str]], layer: Layer) -> FolderPatterns:
        """Add patterns that are anchored in this folder.

        Args:
            lines: What the user is told, and the pattern, weakest first.
            layer: The list that they stand in.
        """
        floating, positions = list(self._floating), list(self._positions)
        size = self._size
        for where, line in lines:
            size += 1
            pattern = parse(line, layer=layer, where=where, rank=size)
            if pattern is not None and pattern.parts[0] is None and len(pattern.parts) == 2:
                floating.append(pattern)
            elif pattern is not None:
                positions += _positions(pattern, 0)
        return FolderPatterns(tuple(floating), tuple(positions), size)

    def entered(self, folder: str) -> FolderPatterns:
        """The patterns of a folder in this folder."""
        if not self._positions:
            return self
        found: list[_Position] = []
        for pattern, at in self._positions:
            part = pattern.parts[at]
            if part is None:
                found += _positions(pattern, at)
            elif at < len(pattern.parts) - 1 and part.matches(folder):
                found += _positions(pattern, at + 1)
        positions = tuple(dict.fromkeys(found))
        below = self._below.get(positions)
        if below is None:
            below = self._below[positions] = FolderPatterns(self._floating, positions, self._size, self._below)
        return below

    def may_match(self, name: str) -> bool:
        """False when no pattern matches the name; the quick question that is asked of every name."""
        return (
            name in self._by_name
            or name[name.rfind(".") :] in self._by_extension
            or (self._glob is not None and self._glob(name) is not None)
        )

    def matches(self, name: str, *, is_folder: bool) -> dict[Layer, Pattern]:
        """The pattern that decides about a name, for each layer in which there is one."""
        candidates = [
            *self._by_name.get(name, ()),
            *self._by_extension.get(name[name.rfind(".") :], ()),
            *self._globs,
        ]
        candidates.sort(key=lambda pattern: pattern.rank)
        return {
            pattern.layer: pattern
            for pattern in candidates
            if (is_folder or not pattern.folders_only) and pattern.last.matches(name)
        }

    def along(self, path: str, *, is_folder: bool) -> Iterator[dict[Layer, Pattern]]:
        """``matches`` for each name of a POSIX path below this folder; ``is_folder`` speaks of the last."""
        patterns = self
        *folders, last = path.split("/")
        for name in folders:
            yield patterns.matches(name, is_folder=True)
            patterns = patterns.entered(name)
        yield patterns.matches(last, is_folder=is_folder)

    def names_below(self, layer: Layer) -> bool:
        """Whether a pattern of the layer has come here through a folder that it names, and wants to go on."""
        return any(
            at > (pattern.parts[0] is None) and pattern.layer is layer and not pattern.negated
            for pattern, at in self._positions
        )


def hit(found: dict[Layer, Pattern], layer: Layer) -> Pattern | None:
    """The pattern that decides in a layer, unless it is a negation."""
    pattern = found.get(layer)
    return None if pattern is None or pattern.negated else pattern
