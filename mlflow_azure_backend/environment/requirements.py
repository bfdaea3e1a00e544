"""Requirement lines, flattened: ``-r`` and ``-c`` followed, index options lifted, every line with its file and number.

The format is pip's (https://pip.pypa.io/en/stable/reference/requirements-file-format/). What cannot be locked is
refused by name; what has no meaning for uv is noted.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import stat
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import (
    InvalidSdistFilename,
    InvalidWheelFilename,
    canonicalize_name,
    parse_sdist_filename,
    parse_wheel_filename,
)

from mlflow_azure_backend.environment.indexes import Indexes, expand, has_credentials, redact
from mlflow_azure_backend.errors import EnvironmentUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

_LARGEST_FILE: Final = 1_000_000  # bytes; a longer list of packages is something else by mistake
_LOCAL: Final = "--env-manager local"
_COMMENT: Final = re.compile(r"(^|\s)#.*$")
_OPTIONS_AFTER: Final = re.compile(r"\s+(?=--?[A-Za-z])")
_SHORT: Final = {
    "-r": "--requirement",
    "-c": "--constraint",
    "-e": "--editable",
    "-i": "--index-url",
    "-f": "--find-links",
}
_FLAGS: Final = frozenset({"--no-index", "--pre", "--prefer-binary", "--require-hashes"})


@dataclass(frozen=True, slots=True)
class RequirementLine:
    """One requirement and where it was read.

    Attributes:
        text: PEP 508, without options and comment.
        name: The project's canonical name.
        origin: ``file:line``, relative to the project's folder.
        hashes: ``algorithm:digest`` that the user pinned; empty means any.
    """

    text: str
    name: str
    origin: str
    hashes: tuple[str, ...] = ()


@dataclass(slots=True)
class Requirements:
    """What requirement lines add up to; filled while they are read.

    Attributes:
        lines: What must be installed.
        constraints: What bounds it.
        indexes: Where to look, as the files say.
        options: ``--no-binary NAME`` and ``--only-binary NAME`` lines.
        prerelease: True when ``--pre`` allows pre-releases everywhere.
        files: Every file read, in the order of reading.
        notes: What was ignored, one line each.
    """

    lines: list[RequirementLine] = field(default_factory=list)
    constraints: list[RequirementLine] = field(default_factory=list)
    indexes: Indexes = field(default_factory=Indexes)
    options: list[str] = field(default_factory=list)
    prerelease: bool = False
    files: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_text(file: Path, shown: str, *, asked_by: str | None = None, largest: int = _LARGEST_FILE) -> str:
    """Read a small UTF-8 file of the user's.

    Args:
        file: The file.
        shown: Its name in messages.
        asked_by: ``file:line`` that names it; None means that ``shown`` is where to look.
        largest: Bytes that it may have.

    Raises:
        EnvironmentUnavailable: it is missing, unreadable, too large, or not UTF-8.
    """
    try:
        found = file.stat()
        if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):  # a pipe or a device may never end
            raise EnvironmentUnavailable(f"{shown}: not a regular file", where=asked_by)
        if found.st_size > largest:
            raise EnvironmentUnavailable(f"{found.st_size:,} bytes are too many for a list of packages", where=shown)
        return file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        what = f"not UTF-8 text (byte {error.start})"
        raise EnvironmentUnavailable(what, where=shown, next_step="save it as UTF-8") from None
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else (error.strerror or "cannot be read")
        raise EnvironmentUnavailable(f"{shown}: {reason}", where=asked_by) from None


def is_there(path: Path) -> bool:
    """Whether something has that name; ``Path.exists`` raises for one that is too long."""
    try:
        path.stat()
    except (OSError, ValueError):
        return False
    return True


def shown_path(file: Path, folder: Path) -> str:
    """The file's name as a user of the project would write it."""
    return Path(os.path.relpath(file, folder)).as_posix()


def read_requirements(
    lines: Iterable[tuple[int, str]], *, file: Path, folder: Path, environ: Mapping[str, str]
) -> Requirements:
    """Flatten the lines of an environment file.

    Args:
        lines: Line numbers in ``file`` and the text there.
        file: Where they stand.
        folder: The project's folder: like MLflow, paths in the environment file itself are relative to it, those in a
            requirements file to that file.
        environ: Gives ``${NAME}`` its value.

    Raises:
        EnvironmentUnavailable: a line is wrong, names a file that is not there, or cannot be locked.
    """
    found = Requirements()
    _Reader(found, folder, environ).read(lines, file=file, base=folder, constraint=False, stack=())
    return found


def _numbered(text: str) -> Iterator[tuple[int, str]]:
    """Logical lines with the number of their first physical one; a backslash at the end continues a line."""
    begun, first = "", 0
    for number, line in enumerate(text.splitlines(), start=1):
        first = first if begun else number
        if line.endswith("\\") and not line.lstrip().startswith("#"):
            begun += line[:-1] + " "
            continue
        yield first, begun + line
        begun = ""
    if begun:
        yield first, begun


@dataclass(frozen=True, slots=True)
class _Line:
    """A line that is being read, with all that its meaning depends on."""

    text: str
    origin: str
    base: Path
    constraint: bool
    stack: tuple[Path, ...]

    def wrong(self, what: str, next_step: str | None = None) -> EnvironmentUnavailable:
        return EnvironmentUnavailable(redact(what), where=self.origin, next_step=next_step)


@dataclass(frozen=True, slots=True)
class _Reader:
    found: Requirements
    folder: Path
    environ: Mapping[str, str]
    seen: set[tuple[Path, bool]] = field(default_factory=set)

    def read(
        self, lines: Iterable[tuple[int, str]], *, file: Path, base: Path, constraint: bool, stack: tuple[Path, ...]
    ) -> None:
        shown = shown_path(file, self.folder)
        if file not in self.found.files:
            self.found.files.append(file)
        for number, raw in lines:
            text = _COMMENT.sub("", raw).strip()
            if not text:
                continue
            line = _Line(text, f"{shown}:{number}", base, constraint, (*stack, file))
            if text.startswith("-"):
                self._options(line)
            else:
                self._requirement(line)

    def _options(self, line: _Line) -> None:
        words = iter(self._split(line, line.text))
        for word in words:
            name, glued = _option(word)
            if name in _FLAGS:
                self._flag(line, name)
                continue
            value = glued if glued is not None else next(words, None)
            read = _VALUED.get(name)
            if read is None:
                raise line.wrong(f"{word.partition('=')[0]} is not understood here", "remove it")
            if not value:
                raise line.wrong(f"{name} needs a value")
            read(self, line, value)

    def _split(self, line: _Line, text: str) -> list[str]:
        try:
            return shlex.split(text)
        except ValueError as error:
            raise line.wrong(f"{str(error).lower()} in '{text}'") from None

    def _flag(self, line: _Line, name: str) -> None:
        if name == "--no-index":
            self.found.indexes = replace(self.found.indexes, no_index=True)
        elif name == "--pre":
            self.found.prerelease = True
        elif name == "--prefer-binary":
            self.found.notes.append(f"{line.origin}: --prefer-binary is ignored: uv knows no such preference")

    def follow(self, line: _Line, value: str) -> None:
        self._follow(line, value, constraint=line.constraint)

    def constrain(self, line: _Line, value: str) -> None:
        self._follow(line, value, constraint=True)

    def _follow(self, line: _Line, value: str, *, constraint: bool) -> None:
        if "://" in value:
            raise line.wrong(f"{value}: a file at an address may change any day", "download it into the project")
        file = Path(os.path.normpath(line.base / expand(value, self.environ)))
        if file in line.stack:
            raise line.wrong(f"{value} includes itself")
        beside = line.stack[-1].parent / value
        if not is_there(file) and is_there(beside):
            what = f"{value}: no such file; MLflow takes paths here as relative to the project's folder"
            raise line.wrong(what, f"write {shown_path(beside, self.folder)}")
        if (file, constraint) in self.seen:
            return
        self.seen.add((file, constraint))
        text = read_text(file, shown_path(file, self.folder), asked_by=line.origin)
        self.read(_numbered(text), file=file, base=file.parent, constraint=constraint, stack=line.stack)

    def editable(self, line: _Line, value: str) -> None:
        what = f"-e {value} cannot be locked: what it installs changes with the files there"
        if Path(os.path.normpath(line.base / value)) == self.folder:
            raise line.wrong(what, f"remove the line (the command runs in the project's folder), or {_LOCAL}")
        raise line.wrong(what, f"name a released version, or {_LOCAL}")

    def index_url(self, line: _Line, value: str) -> None:
        self._check_variables(line, value)
        self.found.indexes = replace(self.found.indexes, index_url=value)

    def extra_index_url(self, line: _Line, value: str) -> None:
        self._check_variables(line, value)
        self.found.indexes = self.found.indexes.over(Indexes(extra_index_urls=(value,)))

    def find_links(self, line: _Line, value: str) -> None:
        kept = value
        if "://" in value:
            self._check_variables(line, value)
        else:
            place = Path(os.path.normpath(line.base / expand(value, self.environ)))
            if not is_there(place):
                raise line.wrong(f"--find-links {value}: no such file or folder")
            kept = value if Path(value).is_absolute() else shown_path(place, self.folder)
        self.found.indexes = self.found.indexes.over(Indexes(find_links=(kept,)))

    def trusted_host(self, _line: _Line, value: str) -> None:
        self.found.indexes = self.found.indexes.over(Indexes(trusted_hosts=(value,)))

    def no_binary(self, _line: _Line, value: str) -> None:
        self.found.options.append(f"--no-binary {value}")

    def only_binary(self, _line: _Line, value: str) -> None:
        self.found.options.append(f"--only-binary {value}")

    def use_feature(self, line: _Line, value: str) -> None:
        self.found.notes.append(f"{line.origin}: --use-feature {value} is ignored: it is pip's own")

    def _check_variables(self, line: _Line, value: str) -> None:
        for match in re.finditer(r"\$\{([A-Z0-9_]+)\}", value):
            if match[1] not in self.environ:
                raise line.wrong(f"{match[0]} is not set in the environment", f"export {match[1]}=...")

    def _requirement(self, line: _Line) -> None:
        text, *options = _OPTIONS_AFTER.split(line.text, maxsplit=1)
        hashes = self._hashes(line, options[0]) if options else ()
        text = _named(line, expand(" ".join(text.split()), self.environ))
        name, address = _parse(line, text)
        if address is not None:
            _check_address(line, address)
        kept = RequirementLine(text, canonicalize_name(name), line.origin, hashes)
        (self.found.constraints if line.constraint else self.found.lines).append(kept)

    def _hashes(self, line: _Line, options: str) -> tuple[str, ...]:
        words = iter(self._split(line, options))
        hashes = []
        for word in words:
            name, glued = _option(word)
            value = glued if glued is not None else next(words, "")
            if name != "--hash":
                raise line.wrong(f"{name} beside a requirement is not supported", f"remove it, or {_LOCAL}")
            if not re.fullmatch(r"\w+:[0-9a-fA-F]+", value):
                raise line.wrong(f"--hash={value} is not ALGORITHM:DIGEST")
            hashes.append(value.lower())
        return tuple(sorted(hashes))


def _option(word: str) -> tuple[str, str | None]:
    """Name and glued value of ``--name=value``, ``-rvalue`` or ``--name``; the long name in any case."""
    if word.startswith("--"):
        name, equals, value = word.partition("=")
        return name, value if equals else None
    return _SHORT.get(word[:2], word), word[2:].lstrip("=") or None


def _parse(line: _Line, text: str) -> tuple[str, str | None]:
    """Name and address; a repository's last folder stands in for the name that only uv can learn from it."""
    if text.startswith("git+"):
        return text.rstrip("/").rpartition("/")[2].partition("@")[0].removesuffix(".git"), text
    try:
        parsed = Requirement(text)
    except InvalidRequirement as error:
        reason = str(error).splitlines()[0]
        raise line.wrong(f"'{text}' is not a requirement: {reason}") from None
    return parsed.name, parsed.url


def _named(line: _Line, text: str) -> str:
    """Give a bare address its ``name @``; refuse paths, whose content no lock can pin."""
    if re.match(r"[A-Za-z0-9][\w.-]*\s*(\[[^\]]*\])?\s*@", text):
        return text
    if "://" not in text:
        if text.lower().endswith((".whl", ".tar.gz", ".zip")):
            raise line.wrong(f"{text} is a path, which no lock can carry", "use --find-links FOLDER and NAME==VERSION")
        if text.startswith((".", "/", "~", "file:")) or re.fullmatch(r"[\w.-]+/[\w./-]*", text):
            raise line.wrong(f"{text} is a path, which no lock can carry", f"name a released version, or {_LOCAL}")
        return text
    if egg := re.search(r"#(?:.*&)?egg=([A-Za-z0-9._-]+)", text):
        return f"{egg[1]} @ {text[: text.index('#')]}"
    if text.startswith("git+"):
        return text
    name = text.partition("#")[0].rstrip("/").rpartition("/")[2]
    with contextlib.suppress(InvalidWheelFilename):
        return f"{parse_wheel_filename(name)[0]} @ {text}"
    with contextlib.suppress(InvalidSdistFilename):
        return f"{parse_sdist_filename(name)[0]} @ {text}"
    raise line.wrong(f"{text} does not say which package it is", f"write NAME @ {redact(text)}")


def _check_address(line: _Line, address: str) -> None:
    if has_credentials(address):
        step = "leave them out: git's credential helper or ~/.netrc can hold them"
        raise line.wrong(f"{address} holds credentials, which would stand in the lock", step)
    if address.startswith("file:"):
        raise line.wrong(f"{address} is a path, which no lock can carry", "use --find-links FOLDER and NAME==VERSION")
    if "+" in address.partition("://")[0] and not address.startswith("git+"):
        raise line.wrong(f"{address}: uv installs from git only", _LOCAL)


_VALUED: Final[Mapping[str, Callable[[_Reader, _Line, str], None]]] = {
    "--requirement": _Reader.follow,
    "--constraint": _Reader.constrain,
    "--editable": _Reader.editable,
    "--index-url": _Reader.index_url,
    "--extra-index-url": _Reader.extra_index_url,
    "--find-links": _Reader.find_links,
    "--trusted-host": _Reader.trusted_host,
    "--no-binary": _Reader.no_binary,
    "--only-binary": _Reader.only_binary,
    "--use-feature": _Reader.use_feature,
}
