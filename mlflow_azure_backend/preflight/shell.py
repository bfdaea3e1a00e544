"""What bash will make of a command: its simple commands in order, as far as its grammar is simple.

Loops, conditions, functions and subshells are not followed: the reading ends before them, and what was read counts as
followed by something unknown.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final, NamedTuple

UNKNOWN: Final = "\ue000"
"""Stands in a command for a value that is not known yet (a character of Unicode's private use area)."""
KEYWORDS: Final = frozenset(
    ("!", "[[", "]]", "case", "coproc", "do", "done", "elif", "else", "esac", "fi", "for", "function", "if", "in")
) | frozenset(("select", "then", "until", "while", "{", "}"))
HARMLESS: Final = frozenset(
    (":", "basename", "date", "dirname", "echo", "export", "hostname", "id", "ls", "nproc", "nvidia-smi", "printf")
) | frozenset(
    ("pwd", "readonly", "rm", "set", "sleep", "true", "ulimit", "umask", "uname", "unset", "uuidgen", "whoami")
)
"""Commands that make no file, install nothing, and whose failure tells nothing."""

_ASSIGNMENT: Final = re.compile(r"([A-Za-z_]\w*)\+?=")
_REDIRECT: Final = re.compile(r"(?:\d+|\{\w+\})?(<<<|<<-|<<|<>|<&|>&|>>|>\||&>>|&>|<|>)")
_OPERATOR: Final = re.compile(r"&&|\|\||;;|\|&|[;&|()\n]")
_BLANKS: Final = re.compile(r"(?:[ \t]|\\\n)+")
_ENDS_WORD: Final = frozenset(" \t\n;&|<>()")
_PATTERN: Final = frozenset("*?[~{")
_LITERAL_WORDS: Final = frozenset(("[", "[[", "{", "{}", "?"))
_VARIABLE: Final = re.compile(r"\$(?:[A-Za-z_]\w*|[0-9!?#@*$-]|\{[^{}`'\"$]*\}|\(\([^()`$]*\)\))")
_ANSI_QUOTE: Final = re.compile(r"\$'(?:\\.|[^'\\])*'", re.DOTALL)
_BACKTICKS: Final = re.compile(r"`((?:\\.|[^`\\])*)`", re.DOTALL)
_ONE_COMMAND: Final = re.compile(r"\s*([\w-]+)(?:\s[^;&|<>`$()\n]*)?")


class _Lost(Exception):
    """The grammar is more than we follow."""


class Word(NamedTuple):
    """A word of a command.

    Attributes:
        text: What the program gets; None when only the running shell knows.
        quoted: Part of it is quoted, so that it is no keyword.
    """

    text: str | None
    quoted: bool


@dataclass(frozen=True, slots=True)
class Step:
    """A simple command, and what its failure means.

    Attributes:
        words: Its name and arguments, assignments and redirections taken away.
        assigned: Variables that are set for it, or for all that follows when there are no words.
        reads: The files of ``<``; None for one that only the running shell knows.
        writes: The files of ``>`` and the like.
        runs_more: It holds a command substitution that may change something.
        in_pipe: It is a part of a pipeline, so that it changes nothing in the shell itself.
        ends_pipe: It is a pipeline's last part, whose exit code counts.
        ends_list: No ``&&`` follows.
        in_last_list: The exit code of its list is the job's.
        is_forgiven: ``||`` or ``&`` takes care of its failure.
    """

    words: tuple[Word, ...]
    assigned: frozenset[str]
    reads: tuple[str | None, ...]
    writes: tuple[str | None, ...]
    runs_more: bool
    in_pipe: bool = False
    ends_pipe: bool = True
    ends_list: bool = True
    in_last_list: bool = False
    is_forgiven: bool = False


@dataclass(slots=True)
class _Draft:
    """A simple command while it is read."""

    words: list[Word] = field(default_factory=list)
    assigned: set[str] = field(default_factory=set)
    reads: list[str | None] = field(default_factory=list)
    writes: list[str | None] = field(default_factory=list)
    runs_more: bool = False

    @property
    def is_empty(self) -> bool:
        return not (self.words or self.assigned or self.reads or self.writes)


def read_steps(command: str) -> tuple[Step, ...]:
    """The simple commands of a command in the order in which they run, up to where its grammar is not simple."""
    reader = _Reader(command)
    lists: list[tuple[list[list[_Draft]], bool]] = []
    is_whole = True
    try:
        while not reader.is_at_end:
            if (read := reader.read_list()) is not None:
                lists.append(read)
    except _Lost:
        is_whole = False
    return tuple(
        Step(
            words=tuple(draft.words),
            assigned=frozenset(draft.assigned),
            reads=tuple(draft.reads),
            writes=tuple(draft.writes),
            runs_more=draft.runs_more,
            in_pipe=len(pipeline) > 1,
            ends_pipe=draft is pipeline[-1],
            ends_list=pipeline is pipelines[-1],
            in_last_list=is_whole and number == len(lists),
            is_forgiven=is_forgiven,
        )
        for number, (pipelines, is_forgiven) in enumerate(lists, start=1)
        for pipeline in pipelines
        for draft in pipeline
    )


class _Reader:
    """Reads a command from left to right; a word at a time, then the operators between them."""

    def __init__(self, command: str) -> None:
        self._text = command
        self._at = 0
        self._here_words: list[tuple[str, bool]] = []
        self._draft = _Draft()

    @property
    def is_at_end(self) -> bool:
        return self._at >= len(self._text)

    def read_list(self) -> tuple[list[list[_Draft]], bool] | None:
        """Pipelines joined by ``&&`` and ``||``, and whether their failure is forgiven; None for an empty line."""
        pipelines: list[list[_Draft]] = [[]]
        is_forgiven = False
        while True:
            draft = self._read_simple_command()
            operator = self._read_operator()
            if draft.is_empty:
                if operator in ("", "\n") and pipelines == [[]]:
                    return None
                raise _Lost
            pipelines[-1].append(draft)
            if operator in ("&&", "||"):
                pipelines.append([])
                is_forgiven = is_forgiven or operator == "||"
            elif operator not in ("|", "|&"):
                return pipelines, is_forgiven or operator == "&"
            while not self.is_at_end and self._peek_newline():
                self._read_operator()

    def _peek_newline(self) -> bool:
        self._skip_blanks()
        return self._text.startswith("\n", self._at)

    def _skip_blanks(self) -> None:
        if blanks := _BLANKS.match(self._text, self._at):
            self._at = blanks.end()
        if self._text.startswith("#", self._at):
            end = self._text.find("\n", self._at)
            self._at = len(self._text) if end < 0 else end

    def _read_operator(self) -> str:
        found = _OPERATOR.match(self._text, self._at)
        if found is None:
            return ""
        if found[0] in (";;", "(", ")"):
            raise _Lost
        self._at = found.end()
        if found[0] == "\n":
            self._skip_here_documents()
        return found[0]

    def _read_simple_command(self) -> _Draft:
        draft = self._draft = _Draft()
        while True:
            self._skip_blanks()
            if self.is_at_end:
                return draft
            if redirect := _REDIRECT.match(self._text, self._at):
                self._at = redirect.end()
                self._read_redirection(redirect[1])
                continue
            if _OPERATOR.match(self._text, self._at):
                return draft
            assignment = None if draft.words else _ASSIGNMENT.match(self._text, self._at)
            word = self._read_word()
            if assignment is not None:
                draft.assigned.add(assignment[1])
                if self._text.startswith("(", self._at):
                    raise _Lost
            elif not draft.words and not word.quoted and word.text in KEYWORDS:
                raise _Lost
            else:
                draft.words.append(word)

    def _read_redirection(self, operator: str) -> None:
        self._skip_blanks()
        start = self._at
        word = self._read_word()
        if self._at == start:
            raise _Lost  # a process substitution, or a mistake
        if operator in ("<<", "<<-"):
            if word.text is None:
                raise _Lost
            self._here_words.append((word.text, word.quoted))
        elif operator in ("<", "<>"):
            self._draft.reads.append(word.text)
        elif operator not in ("<<<", "<&") and not re.fullmatch(r"\d+-?|-", word.text or ""):
            self._draft.writes.append(word.text)

    def _skip_here_documents(self) -> None:
        for end, is_verbatim in self._here_words:
            body = re.compile(rf"(?s)(.*?)^\t*{re.escape(end)}$\n?", re.MULTILINE).match(self._text, self._at)
            if body is None or (not is_verbatim and re.search(r"\$\(|`", body[1])):
                raise _Lost
            self._at = body.end()
        self._here_words.clear()

    def _read_word(self) -> Word:
        start, text, is_known, is_quoted, is_pattern = self._at, "", True, False, False
        while not self.is_at_end and (character := self._text[self._at]) not in _ENDS_WORD:
            if character == "'":
                text += self._read_until_quote()
                is_quoted = True
            elif character == '"':
                inside = self._read_double_quotes()
                text, is_known, is_quoted = text + (inside or ""), is_known and inside is not None, True
            elif character == "\\":
                text += self._text[self._at + 1 : self._at + 2].removesuffix("\n")
                self._at, is_quoted = self._at + 2, True
            elif character in "$`" and self._skip_expansion():
                is_known = False
            else:
                text += character
                is_pattern = is_pattern or character in _PATTERN
                self._at += 1
        if is_pattern and self._text[start : self._at] not in _LITERAL_WORDS:
            is_known = False
        return Word(text if is_known and UNKNOWN not in text else None, is_quoted)

    def _read_until_quote(self) -> str:
        end = self._text.find("'", self._at + 1)
        if end < 0:
            raise _Lost
        text, self._at = self._text[self._at + 1 : end], end + 1
        return text

    def _read_double_quotes(self) -> str | None:
        """The text between them; None when it holds an expansion."""
        text, is_known = "", True
        self._at += 1
        while not self._text.startswith('"', self._at):
            if self.is_at_end:
                raise _Lost
            character = self._text[self._at]
            following = self._text[self._at + 1 : self._at + 2]
            if character == "\\" and following and following in '"\\$`\n':
                text, self._at = text + following.removesuffix("\n"), self._at + 2
            elif character in "$`" and self._skip_expansion(in_quotes=True):
                is_known = False
            else:
                text, self._at = text + character, self._at + 1
        self._at += 1
        return text if is_known else None

    def _skip_expansion(self, *, in_quotes: bool = False) -> bool:
        """Go past a variable or substitution; False for a dollar sign that is only one."""
        if found := _BACKTICKS.match(self._text, self._at):
            self._at = found.end()
            self._note_commands(found[1])
            return True
        found = _VARIABLE.match(self._text, self._at)
        if found is None and not in_quotes:
            found = _ANSI_QUOTE.match(self._text, self._at)
        if found is not None:
            self._at = found.end()
            return True
        following = self._text[self._at + 1 : self._at + 2]
        if following == "(":
            start = self._at + 2
            self._skip_parentheses()
            self._note_commands(self._text[start : self._at - 1])
            return True
        if following in ("{", "[") or self._text.startswith("`", self._at):
            raise _Lost
        return False

    def _note_commands(self, text: str) -> None:
        only = _ONE_COMMAND.fullmatch(text)
        is_git_question = re.match(r"\s*git\s+(rev-parse|describe|log|show|config --get)\b", text) is not None
        if only is None or not (only[1] in HARMLESS or is_git_question):
            self._draft.runs_more = True

    def _skip_parentheses(self) -> None:
        depth = 0
        while not self.is_at_end:
            character = self._text[self._at]
            if character == "'":
                self._read_until_quote()
            elif character == '"':
                self._read_double_quotes()
            elif character in "#`" or self._text.startswith(("<<", "case "), self._at):
                raise _Lost
            else:
                depth += {"(": 1, ")": -1}.get(character, 0)
                self._at += 2 if character == "\\" else 1
                if character == ")" and depth == 0:
                    return
        raise _Lost
