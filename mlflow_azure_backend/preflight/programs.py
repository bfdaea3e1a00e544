"""How the programs that projects are started with read their arguments, as far as they name a file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from mlflow_azure_backend.preflight.shell import Word

SHELLS: Final = frozenset(("bash", "dash", "ksh", "sh", "zsh"))
BUILTINS: Final = (
    frozenset(
        (".", ":", "[", "alias", "bg", "bind", "break", "builtin", "caller", "cd", "command", "compgen", "complete")
    )
    | frozenset(
        (
            "compopt",
            "continue",
            "declare",
            "dirs",
            "disown",
            "echo",
            "enable",
            "eval",
            "exec",
            "exit",
            "export",
            "false",
        )
    )
    | frozenset(
        ("fc", "fg", "getopts", "hash", "help", "history", "jobs", "kill", "let", "local", "logout", "mapfile", "popd")
    )
    | frozenset(
        (
            "printf",
            "pushd",
            "pwd",
            "read",
            "readarray",
            "readonly",
            "return",
            "set",
            "shift",
            "shopt",
            "source",
            "suspend",
        )
    )
    | frozenset(
        ("test", "times", "trap", "true", "type", "typeset", "ulimit", "umask", "unalias", "unset", "wait", "time")
    )
)
"""What bash knows without looking for a program (``compgen -b`` of bash 5.2)."""

_PYTHON_FLAGS: Final = frozenset("bBdEiIOPqRsSuvx")


class PythonCall(NamedTuple):
    """What a Python is started with.

    Attributes:
        flags: Its own one-letter options.
        is_module: ``-m``.
        target: The module or the script.
        arguments: What follows it.
    """

    flags: frozenset[str]
    is_module: bool
    target: str
    arguments: tuple[Word, ...]


def read_python(words: Sequence[Word]) -> PythonCall | None:
    """The script or module that a Python is started with; None when it is neither, or not certain.

    The options are those of CPython 3.10 to 3.14 (docs.python.org, "Command line and environment").
    """
    flags: set[str] = set()
    index = 0
    while index < len(words):
        text = words[index].text
        if text is None or text == "-" or text.startswith("--"):
            return None
        if not text.startswith("-"):
            return PythonCall(frozenset(flags), False, text, tuple(words[index + 1 :]))
        letters = re.match(f"[{''.join(_PYTHON_FLAGS)}]*", text[1:])
        flags.update(letters[0] if letters else "")
        rest = text[1 + (letters.end() if letters else 0) :]
        if rest[:1] in ("W", "X"):
            index += 1 if rest[1:] else 2
        elif rest[:1] == "m":
            following = words[index + 1 :]
            module = rest[1:] or (following[0].text if following else None)
            if not module:
                return None
            return PythonCall(frozenset(flags), True, module, tuple(following if rest[1:] else following[1:]))
        elif rest:
            return None
        else:
            index += 1
    return None


def read_shell(words: Sequence[Word]) -> str | None:
    """The script that a shell is started with; None when there is none, or it is not certain."""
    index = 0
    while index < len(words):
        text = words[index].text
        if text is None or text == "-":
            return None
        if text[:1] not in ("-", "+"):
            return text
        if re.fullmatch(r"[-+][abefhkmnptuvxBCEHPT]*o", text):
            index += 1
        elif not re.fullmatch(r"[-+][abefhkmnptuvxBCEHPTl]+|--(login|norc|noprofile|posix|verbose)", text):
            return None
        index += 1
    return None


def read_rscript(words: Sequence[Word]) -> str | None:
    """The script that ``Rscript`` is started with; None when there is none, or it is not certain."""
    for word in words:
        if word.text is None or word.text == "-e":
            return None
        if not word.text.startswith("-"):
            return word.text
    return None


def pip_files(words: Sequence[Word]) -> Iterator[str]:
    """The requirements and constraints files that ``pip install`` reads."""
    texts = [word.text for word in words]
    if "install" not in texts:
        return
    for text, following in zip(texts, [*texts[1:], None], strict=False):
        if text in ("-r", "-c", "--requirement", "--constraint"):
            name = following
        else:
            joined = re.match(r"(?:-[rc]|--(?:requirement|constraint)=)(?=.)", text or "")
            name = (text or "")[joined.end() :] if joined else None
        if name and "://" not in name and not re.search(r"\$\{", name):
            yield name
