"""A command's template: ``str.format``'s placeholders over the shell's quotes."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from difflib import get_close_matches
from string import Formatter
from typing import TYPE_CHECKING, Final

from mlflow_azure_backend.errors import ParameterError, ProjectError

if TYPE_CHECKING:
    from collections.abc import Sequence

_PLAIN: Final = re.compile(r"[A-Za-z0-9_@%+:./-]+")  # no comma, which can expand; no "=", which can assign
_NEEDS_QUOTES: Final = re.compile(r"(\A|[;&|(\n])\s*\Z|\$\w+\Z")  # after it: a command's name, a variable's end
_FORMAT: Final = re.compile(r"(.?[<>^])?\d{0,3}(\.\d{1,3})?s?", re.DOTALL)


def quoted(text: str, piece: CommandPiece, before: str, following: str, where: str) -> str:
    """Write a value so that the shell hands it on verbatim at this place of the template."""
    word = shlex.quote(text)
    if piece.quoting is None:
        if word == text:
            return text
        what = f"the value of '{piece.name}' cannot be quoted where its placeholder stands"
        step = f"outside backticks, ${{…}}, arithmetic and here-documents it can: x={{{piece.name}}}; … $x"
        raise ParameterError(what, where=where, next_step=step)
    if _PLAIN.fullmatch(text) and not (_NEEDS_QUOTES.search(before[-256:]) or following in ("<", ">")):
        return text
    word = f"'{text}'" if word == text else word
    # Inside quotes: end them, write the quoted word, begin them again. The shell joins the three.
    opening = piece.quoting
    closing = opening.removeprefix("$")
    return f"{closing}{word}{opening}"


@dataclass(frozen=True, slots=True)
class CommandPiece:
    """Some text of a template and the placeholder after it.

    Attributes:
        name: None at the end of the template.
        format: The placeholder's format specification.
        quoting: The shell quote that the placeholder stands in (``'``, ``"`` or ``$'``), ``""`` for none; None means a
            place where no quoting is safe.
    """

    literal: str
    name: str | None
    format: str
    quoting: str | None


class CommandTemplate:
    """A command in ``str.format``'s syntax over the shell's."""

    def __init__(self, command: str, names: Sequence[str], where: str) -> None:
        self._names = names
        self._where = where
        self.pieces: list[CommandPiece] = []
        shell = _ShellScanner()
        for literal, name, format_ in self._split(command):
            shell.read(literal)
            if name is not None:
                self._check(name, format_)
                if shell.expects_a_name:
                    step = f"write {{{name}}} for the parameter, ${{{{{name}}}}} for a shell variable"
                    raise ProjectError(
                        f"'${{{name}}}' is both a shell variable and a parameter", where=where, next_step=step
                    )
            self.pieces.append(CommandPiece(literal, name, format_, shell.quoting if name is not None else None))
            if name is not None:
                shell.read_value()
        self.can_be_appended_to = shell.can_be_appended_to

    def _split(self, command: str) -> list[tuple[str, str | None, str]]:
        """Literal, placeholder and format; the last literal has no placeholder."""
        pieces: list[tuple[str, str | None, str]] = []
        literal = ""
        try:
            for text, name, format_, _ in Formatter().parse(command):
                literal += text
                if name is not None:
                    # A conversion (!r, !s) says how to quote in MLflow; here every value is quoted anyway.
                    pieces.append((literal, name, format_ or ""))
                    literal = ""
        except ValueError as error:
            step = "write {{ and }} for braces that are no placeholder"
            raise ProjectError(
                f"the command's braces do not match: {error}", where=self._where, next_step=step
            ) from None
        return [*pieces, (literal, None, "")]

    def _check(self, name: str, format_: str) -> None:
        if name not in self._names:
            near = get_close_matches(name.strip(), self._names, n=1)
            step = f"declare it under 'parameters', or write {{{{{name}}}}} for plain braces"
            if near:
                step = f"did you mean {{{near[0]}}}?"
            raise ProjectError(
                f"the command names {{{name}}}, which is no declared parameter", where=self._where, next_step=step
            )
        if not _FORMAT.fullmatch(format_):
            step = f"write {{{name}}} and let the program format it"
            raise ProjectError(
                f"the format '{format_}' of {{{name}}} is not for texts", where=self._where, next_step=step
            )


# How a shell reads a template: which quotes a place stands in.

_ESCAPE = r"\\[\s\S]|\\\Z"
_DOLLAR = r"\$\(\(|\$[({\[]|\$[$!?#@*0-9-]|\$\Z"
_CODE: Final = re.compile(
    rf"""{_ESCAPE}|{_DOLLAR}|\$['"]|['"`]|\(\(|[()]|(?<![^\s;&|()<>])\#|<<<|<<-?|\n|(?<![\w./-])case(?![\w./-])"""
)
_MARKS: Final = {
    "": _CODE,
    "$(": _CODE,
    "(": _CODE,
    "'": re.compile("'"),
    "$'": re.compile(rf"{_ESCAPE}|'"),
    '"': re.compile(rf'{_ESCAPE}|{_DOLLAR}|["`]'),
    "`": re.compile(rf"{_ESCAPE}|`"),
    "${": re.compile(rf"""{_ESCAPE}|{_DOLLAR}|\$['"]|['"`}}]"""),
    "((": re.compile(rf"""{_ESCAPE}|{_DOLLAR}|['"`()]"""),
    "#": re.compile(r"\n"),
}
_CLOSING: Final = {"'": "'", "$'": "'", '"': '"', "`": "`", "${": "}", "((": ")", "$(": ")", "(": ")", "#": "\n"}
_OPENING: Final = {
    "'": ["'"],
    '"': ['"'],
    '$"': ['"'],
    "$'": ["$'"],
    "`": ["`"],
    "$(": ["$("],
    "(": ["("],
    "${": ["${"],
    "$((": ["((", "(("],
    "((": ["((", "(("],
    "#": ["#"],
}
_HERE_WORD: Final = re.compile(r"""[ \t]*((?:\\.|'[^'\n]*'|"[^"\n]*"|[^\s;&|<>()'"\\])+)(?=[\s;&|<>()])""")


class _ShellScanner:
    """Follows a bash command from left to right, and says how a word must be quoted at the place reached.

    It knows quotes, substitutions, comments and here-documents. Where bash's grammar takes more than that (a ``case``
    inside a substitution, say) it gives up for the rest of the command and calls no quoting safe.
    """

    def __init__(self) -> None:
        self._frames = [""]  # what is open, outermost first, by what opened it
        self._lost = False
        self._here_words: list[str] = []
        self._line = ""  # of a here-document
        self._previous = "\n"
        self._pending = ""  # a backslash or dollar sign whose object is still to come

    @property
    def expects_a_name(self) -> bool:
        """True after a dollar sign that the shell would read together with what follows."""
        return self._pending == "$"

    @property
    def quoting(self) -> str | None:
        """The quote that is open, ``""`` for none; None where no quoting is safe."""
        innermost_code = max(index for index, frame in enumerate(self._frames) if frame in ("", "$(", "("))
        inside = self._frames[innermost_code + 1 :]
        if self._lost or self._pending or len(inside) > 1:
            return None
        if not inside:
            return ""
        return inside[0] if inside[0] in ("'", '"', "$'") else None

    @property
    def can_be_appended_to(self) -> bool:
        """False when the command ends in a comment, a quotation or a here-document."""
        return self._lost or (self._frames == [""] and not self._pending)

    def read_value(self) -> None:
        """Go past a value."""
        self._previous, self._pending = "v", ""
        self._line += "\0"  # a line with a value never ends a here-document

    def read(self, literal: str) -> None:
        """Go past some text of the template."""
        text = self._previous + literal
        at = len(self._previous)
        while at < len(text) and not self._lost:
            if self._frames[-1] == "<<":
                at = self._read_here_line(text, at)
                continue
            mark = _MARKS[self._frames[-1]].search(text, at)
            if mark is None:
                break
            at = self._take(mark[0], text, mark.end())
        self._previous = text[-1]

    def _take(self, mark: str, text: str, at: int) -> int:
        frame = self._frames[-1]
        if mark in ("\\", "$"):
            self._pending = mark
        elif mark == _CLOSING.get(frame):
            self._frames.pop()
            if mark == "\n":
                self._begin_here_document()
        elif mark == "\n":
            self._begin_here_document()
        elif mark in ("<<", "<<-"):
            return self._read_here_word(text, at)
        elif mark == "$[" or (mark == "case" and frame) or (mark in ("'", "$'") and not self._is_quote_in(frame)):
            self._lost = True
        elif mark == "(" and frame == "((":
            self._frames.append("((")
        else:
            self._frames += _OPENING.get(mark, [])
        return at

    def _is_quote_in(self, frame: str) -> bool:
        return frame != "((" and not (frame == "${" and '"' in self._frames)

    def _read_here_word(self, text: str, at: int) -> int:
        word = _HERE_WORD.match(text, at)
        if word is None:
            self._lost = True
            return at
        self._here_words.append(re.sub(r"[\\'\"]", "", word[1]))
        return word.end()

    def _begin_here_document(self) -> None:
        if self._here_words:
            self._frames.append("<<")
            self._line = ""

    def _read_here_line(self, text: str, at: int) -> int:
        end = text.find("\n", at)
        self._line += text[at:] if end < 0 else text[at:end]
        if end < 0:
            return len(text)
        if self._line.lstrip("\t") == self._here_words[0]:
            self._here_words.pop(0)
            if not self._here_words:
                self._frames.pop()
        self._line = ""
        return end + 1
