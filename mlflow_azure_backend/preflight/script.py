"""What Python will say of a script before it runs a line of it, or as soon as it reads its arguments.

A script's ``argparse`` options are known when all of them are literals and nothing but the script itself can have added
one. Then the same parser is built here, and says itself what it thinks of the arguments. None of the script is run.
"""

from __future__ import annotations

import argparse
import ast
import traceback
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Final, NoReturn

_NAME: Final = "the script that is looked at"
"""The file name that is compiled, so that warnings of the user's code can be told from all others."""
_ACTIONS: Final = frozenset(
    ("append", "append_const", "count", "extend", "store", "store_const", "store_false", "store_true")
)
_PARSER_KEYWORDS: Final = frozenset(
    ("prog", "usage", "description", "epilog", "formatter_class", "add_help", "allow_abbrev")
)
_PARSER_METHODS: Final = frozenset(
    ("add_argument", "add_argument_group", "add_mutually_exclusive_group", "error", "exit", "format_help")
) | frozenset(("format_usage", "get_default", "parse_args", "print_help", "print_usage", "set_defaults"))
_TYPES: Final = {"int": int, "float": float, "str": str}
_WIDTH: Final = 10_000


def parse(data: bytes) -> ast.Module | None:
    """The syntax tree of a script; None when Python refuses it."""
    _ignore_its_warnings()
    try:
        return ast.parse(data, _NAME)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def syntax_error(data: bytes, path: str) -> str | None:
    """What Python says when it cannot compile a script, line by line as it is printed; None when it can.

    Args:
        data: The script.
        path: What Python would call it.
    """
    _ignore_its_warnings()
    try:
        compile(data, _NAME, "exec", dont_inherit=True)
    except SyntaxError as error:
        undecodable = _undecodable(data, path) if "'utf-8' codec can't decode" in str(error.msg) else None
        error.filename = path
        return undecodable or "".join(traceback.format_exception_only(error))
    except (ValueError, RecursionError, MemoryError):
        return None  # what the interpreter itself would make of it is not certain
    return None


def _ignore_its_warnings() -> None:
    """Python warns of odd code while it compiles; the job will say so itself. A filter that exists is not doubled."""
    warnings.filterwarnings("ignore", module=_NAME)


def _undecodable(data: bytes, path: str) -> str | None:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return (
            f"SyntaxError: Non-UTF-8 code starting with '\\x{data[error.start]:02x}' in file {path} on line {line}, "
            "but no encoding declared; see https://peps.python.org/pep-0263/ for details\n"
        )
    return None


def usage_error(tree: ast.Module, name: str, arguments: Sequence[str]) -> tuple[bool, str | None]:
    """Whether a script's options are known for certain, and what it says when it does not like its arguments.

    Args:
        tree: The script.
        name: Its file name without folders, as ``argparse`` prints it.
        arguments: What it is started with.
    """
    if {"-h", "--help"} & set(arguments):
        return False, None
    try:
        parser = _build(tree, name)
    except (_Unclear, ValueError, TypeError, argparse.ArgumentError):
        return False, None
    try:
        parser.parse_args(list(arguments))
    except _Refused as refused:
        return True, f"{parser.format_usage()}{name}: error: {refused}\n"
    return True, None


class _Unclear(Exception):
    """The options are not known for certain."""


class _Refused(Exception):
    """The parser's own words."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise _Refused(message)


def _build(tree: ast.Module, name: str) -> argparse.ArgumentParser:
    parsers = _variables(tree)
    creation = _the_parser(tree, parsers)
    if not _is_of_standard_library(tree, creation):
        raise _Unclear
    keywords = {keyword.arg: _literal(keyword.value, True) for keyword in creation.keywords}
    parser = _Parser(
        prog=name,
        add_help=bool(keywords.get("add_help", True)),
        allow_abbrev=bool(keywords.get("allow_abbrev", True)),
        formatter_class=lambda prog: argparse.HelpFormatter(prog, width=_WIDTH),
    )
    if hasattr(parser, "color"):
        parser.color = False  # Python 3.14 and later
    added = []
    for call in _certain_calls(tree.body, tree, set()):
        if _method(call) == "parse_args":
            break
        if _method(call) == "add_argument":
            added.append(call)
    else:
        raise _Unclear
    everywhere = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and _method(node) == "add_argument"]
    if len(added) != len(everywhere):
        raise _Unclear
    for call in added:
        _add(parser, call)
    return parser


def _variables(tree: ast.Module) -> set[str]:
    """The names of the parser and its groups."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            called = _method(node.value)
            if called in ("ArgumentParser", "add_argument_group", "add_mutually_exclusive_group"):
                if not (len(node.targets) == 1 and isinstance(node.targets[0], ast.Name)):
                    raise _Unclear
                names.add(node.targets[0].id)
    return names


def _the_parser(tree: ast.Module, names: set[str]) -> ast.Call:
    """The one place where a parser is made, if nobody else can lay hands on it or on what it reads."""
    receivers = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    creations = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _method(node) == "ArgumentParser":
            creations.append(node)
        elif isinstance(node, ast.Name) and node.id in names and isinstance(node.ctx, ast.Load):
            if id(node) not in receivers:
                raise _Unclear  # handed to somebody who may add options
        elif isinstance(node, ast.Attribute):
            of_parser = isinstance(node.value, ast.Name) and node.value.id in names
            if node.attr == "argv" or (of_parser and node.attr not in _PARSER_METHODS):
                raise _Unclear
        elif isinstance(node, ast.Call) and _method(node) == "parse_args" and (node.args or node.keywords):
            raise _Unclear
    mentions = [
        node
        for node in ast.walk(tree)
        if (isinstance(node, ast.Attribute) and node.attr in ("ArgumentParser", "SystemExit", "parse_args"))
        or (isinstance(node, ast.Name) and node.id in ("ArgumentParser", "SystemExit"))
    ]
    assigned = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Assign)}
    if len(creations) != 1 or id(creations[0]) not in assigned or creations[0].args or len(mentions) != 2:
        raise _Unclear
    if not {keyword.arg for keyword in creations[0].keywords} <= _PARSER_KEYWORDS:
        raise _Unclear
    return creations[0]


def _is_of_standard_library(tree: ast.Module, creation: ast.Call) -> bool:
    """Whether it is ``argparse`` itself: other libraries have an ``ArgumentParser``, too."""
    imported = {
        (getattr(node, "module", None), alias.name, alias.asname)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
    }
    function = creation.func
    if isinstance(function, ast.Name):
        return ("argparse", "ArgumentParser", None) in imported
    module = getattr(getattr(function, "value", None), "id", None)
    return (None, "argparse", None if module == "argparse" else module) in imported


def _method(call: ast.Call) -> str | None:
    """The last name of what is called."""
    function = call.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", None)


def _certain_calls(body: Sequence[ast.stmt], tree: ast.Module, within: set[str]) -> Iterator[ast.Call]:
    """The calls that are made whenever the script runs, those of functions that it calls so included."""
    for statement in body:
        if isinstance(statement, ast.With) or (isinstance(statement, ast.If) and _is_main_guard(statement.test)):
            yield from _certain_calls(statement.body, tree, within)
        elif isinstance(statement, (ast.Expr, ast.Assign, ast.AnnAssign, ast.Return, ast.Raise)):
            for call in _calls_in(statement):
                yield call
                function = _function(tree, call)
                if function is not None and function.name not in within:
                    within.add(function.name)
                    yield from _certain_calls(function.body, tree, within)
        elif isinstance(statement, (ast.If, ast.For, ast.While, ast.Try)) and _may_leave(statement):
            raise _Unclear
        if isinstance(statement, (ast.Return, ast.Raise)):
            return


def _may_leave(statement: ast.stmt) -> bool:
    """Whether what follows may never run, although nothing failed."""
    return any(
        isinstance(node, ast.Return) or (isinstance(node, ast.Call) and _method(node) in ("exit", "_exit", "quit"))
        for node in ast.walk(statement)
    )


def _calls_in(node: ast.AST) -> Iterator[ast.Call]:
    """In the order in which they are made: a call's arguments before itself."""
    if isinstance(node, (ast.Lambda, ast.IfExp, ast.BoolOp, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)):
        return
    for child in ast.iter_child_nodes(node):
        yield from _calls_in(child)
    if isinstance(node, ast.Call):
        yield node


def _function(tree: ast.Module, call: ast.Call) -> ast.FunctionDef | None:
    if not isinstance(call.func, ast.Name):
        return None
    name = call.func.id
    found = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
    is_generator = any(isinstance(node, (ast.Yield, ast.YieldFrom)) for one in found for node in ast.walk(one))
    return found[0] if len(found) == 1 and not found[0].decorator_list and not is_generator else None


def _is_main_guard(test: ast.expr) -> bool:
    return ast.unparse(test) in ("__name__ == '__main__'", "'__main__' == __name__")


def _add(parser: argparse.ArgumentParser, call: ast.Call) -> None:
    """The same ``add_argument``, without what only matters for its help."""
    names = [_literal(argument) for argument in call.args]
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    if not names or not all(isinstance(name, str) for name in names) or None in given:
        raise _Unclear
    keywords: dict[str, Any] = {}
    for key in ("action", "dest", "nargs", "required"):
        if key in given:
            keywords[key] = _action(given[key]) if key == "action" else _literal(given[key])
    if keywords.get("nargs") in (argparse.REMAINDER, argparse.PARSER):
        raise _Unclear
    if str(keywords.get("action")).endswith("_const"):
        keywords["const"] = True
    kind = given.get("type")
    if isinstance(kind, ast.Name) and kind.id in _TYPES:
        keywords["type"] = _TYPES[kind.id]
    choices = given.get("choices")
    if isinstance(choices, (ast.List, ast.Tuple)) and (kind is None or "type" in keywords):
        keywords["choices"] = _literal(choices)
    if not str(names[0]).startswith("-") and keywords.get("nargs") in ("?", "*"):
        keywords.pop("choices", None)  # whether its default is checked differs between versions
    parser.add_argument(*map(str, names), **keywords)


def _action(node: ast.expr) -> Any:
    if isinstance(node, (ast.Attribute, ast.Name)) and ast.unparse(node).endswith("BooleanOptionalAction"):
        return argparse.BooleanOptionalAction
    action = _literal(node)
    if action not in _ACTIONS:
        raise _Unclear
    return action


def _literal(node: ast.expr, default: Any = None) -> Any:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        if default is None:
            raise _Unclear from None
        return default
