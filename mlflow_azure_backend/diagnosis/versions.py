"""Causes in code that was written for another version of Python, or of a package, than the one it met."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from mlflow_azure_backend.diagnosis.case import Case, Finding, add_requirement, on_error, on_last_words, replace_line

_REMOVED_MODULES: Final = {
    **dict.fromkeys(("asynchat", "asyncore", "distutils", "imp", "smtpd"), "3.11"),
    **dict.fromkeys(("audioop", "cgi", "cgitb", "imghdr", "nntplib", "pipes", "sndhdr", "telnetlib", "xdrlib"), "3.12"),
}
"""Modules that Python dropped, and the last version that has them ("What's New" of 3.12 and 3.13)."""

_NEW_MODULES: Final = {"graphlib": "3.9", "zoneinfo": "3.9", "tomllib": "3.11", "annotationlib": "3.14"}
"""Modules that Python gained, and the first version that has them."""

_NEW_NAMES: Final = {
    ("asyncio", "TaskGroup"): "3.11",
    ("asyncio", "timeout"): "3.11",
    ("contextlib", "chdir"): "3.11",
    ("datetime", "UTC"): "3.11",
    ("enum", "StrEnum"): "3.11",
    ("functools", "cache"): "3.9",
    ("itertools", "batched"): "3.12",
    ("itertools", "pairwise"): "3.10",
    ("types", "UnionType"): "3.10",
    **{("typing", name): "3.10" for name in ("Concatenate", "ParamSpec", "TypeAlias", "TypeGuard")},
    **{("typing", name): "3.11" for name in ("LiteralString", "Never", "NotRequired", "Required", "Self", "Unpack")},
    **{("typing", name): "3.12" for name in ("TypeAliasType", "override")},
    ("warnings", "deprecated"): "3.13",
}
"""Names that the standard library gained, and the first version that has them."""

_ABSTRACT: Final = (
    "Awaitable",
    "Callable",
    "Container",
    "Coroutine",
    "Generator",
    "Hashable",
    "ItemsView",
    "Iterable",
    "Iterator",
    "KeysView",
    "Mapping",
    "MutableMapping",
    "MutableSequence",
    "MutableSet",
    "Sequence",
    "Set",
    "Sized",
    "ValuesView",
)
_OLD_NAMES: Final = {
    **{("collections", name): f"collections.abc.{name}" for name in _ABSTRACT},
    ("asyncio", "coroutine"): "async def",
    ("cgi", "escape"): "html.escape",
    ("fractions", "gcd"): "math.gcd",
    ("inspect", "getargspec"): "inspect.getfullargspec",
    ("time", "clock"): "time.perf_counter",
}
"""Names that the standard library dropped by 3.11, and what takes their place."""

_OLD_NUMPY: Final = {
    **{name: name for name in ("bool", "complex", "float", "int", "object", "str")},
    "Inf": "np.inf",
    "NaN": "np.nan",
    "alltrue": "np.all",
    "bool8": "np.bool_",
    "cumproduct": "np.cumprod",
    "float_": "np.float64",
    "in1d": "np.isin",
    "long": "int",
    "product": "np.prod",
    "row_stack": "np.vstack",
    "sometrue": "np.any",
    "trapz": "np.trapezoid",
    "unicode": "str",
    "unicode_": "np.str_",
}
"""Names that NumPy dropped in 1.24, 2.0 and 2.4, and what takes their place."""

_NEW_SYNTAX: Final[tuple[tuple[str, Callable[[str], object]], ...]] = (
    ("3.10", re.compile(r"match [^=]*:$").match),
    ("3.11", re.compile(r"except ?\*").match),
    ("3.12", re.compile(r"type \w+(?:\[.*\])? = ").match),
    ("3.12", re.compile(r"(?:async )?(?:def|class) \w+\[").match),
    ("3.14", re.compile(r".*(?<!\w)t[\"']").match),
)
"""Statements that older versions do not parse: the first version that does, and how the line looks."""


@on_error("ImportError ModuleNotFoundError", r"^No module named '([\w.]+)'")
def module_of_other_python(case: Case, found: re.Match[str]) -> Finding | None:
    """A module that this version of Python no longer has, or does not have yet."""
    module = found[1].split(".")[0]
    last, first = _REMOVED_MODULES.get(module), _NEW_MODULES.get(module)
    if last is not None and not _is_before(case, last, inclusive=True):
        fix = add_requirement(case.evidence, "setuptools") if module == "distutils" else _use(case, last)
        return Finding(f"Python {_version(case)} no longer has the module {module}; {last} was the last that had", fix)
    if first is not None and _is_before(case, first):
        return Finding(f"the module {module} came with Python {first}, and this is {_version(case)}", _use(case, first))
    return None


@on_error(
    "ImportError AttributeError",
    r"^cannot import name '(?P<name>\w+)' from '(?P<module>\w+)'"
    r"|^module '(?P<owner>\w+)' has no attribute '(?P<attribute>\w+)'",
)
def name_of_other_python(case: Case, found: re.Match[str]) -> Finding | None:
    """A name that this version of the standard library no longer has, or does not have yet."""
    module, name = found["module"] or found["owner"], found["name"] or found["attribute"]
    new, first = _OLD_NAMES.get((module, name)), _NEW_NAMES.get((module, name))
    if new is not None:
        source = case.source.replace(f"from {module} import {name}", f"from {new.rpartition('.')[0]} import {name}")
        source = re.sub(rf"\b{module}\.{name}\b", new, source) if source == case.source else source
        replaceable = source != case.source and "." in new and "," not in case.source
        fix = replace_line(case, source) if replaceable else f"use {new} instead"
        return Finding(f"Python {_version(case)} no longer has {module}.{name}; {new} takes its place", fix)
    if first is not None and _is_before(case, first):
        return Finding(f"{module}.{name} came with Python {first}, and this is {_version(case)}", _use(case, first))
    return None


@on_error("SyntaxError", "")
def syntax_of_other_python(case: Case, found: re.Match[str]) -> Finding | None:
    """A statement that only a newer Python parses, or only Python 2."""
    if case.frame is None or case.frame.function is not None:
        return None
    if found.string.startswith("Missing parentheses in call to 'print'"):
        argument = re.fullmatch(r"print +([^,%>]+)", case.source)
        fix = None if argument is None else replace_line(case, f"print({argument[1]})")
        return Finding(f"{case.file} is written for Python 2: print is a function since Python 3", fix)
    if found.string.startswith(("f-string: unmatched", "f-string: expecting")) and _is_before(case, "3.12"):
        cause = f"{case.place} uses an f-string that came with Python 3.12, and this is {_version(case)}"
        return Finding(cause, _use(case, "3.12"))
    for first, looks_so in _NEW_SYNTAX:
        if looks_so(case.source) and _is_before(case, first):
            cause = f"{case.place} uses syntax that came with Python {first}, and this is {_version(case)}"
            return Finding(cause, _use(case, first))
    return None


@on_last_words((1,), r"ERROR: Package '([^']+)' requires a different Python: (\S+) not in '([^']+)'")
def package_of_other_python(_case: Case, found: re.Match[str]) -> Finding:
    """Pip's own word."""
    return Finding(f"the package {found[1]} needs Python {found[3]}, and this is {found[2]}")


@on_error("AttributeError", r"^module 'numpy' has no attribute '(\w+)'|^`np\.(\w+)` was removed .*Use `([\w.]+)`")
def old_numpy_name(case: Case, found: re.Match[str]) -> Finding | None:
    """A name that NumPy dropped."""
    name = found[1] or found[2]
    new = found[3] or _OLD_NUMPY.get(name)
    if new is None or not case.went_through("numpy/__init__.py"):
        return None
    cause = f"the installed NumPy no longer has np.{name}; {new} takes its place"
    source = re.sub(rf"\b(?:np|numpy)\.{name}\b", new, case.source)
    if source == case.source or "numpy." in case.source:
        return Finding(cause, add_requirement(case.evidence, "numpy<2" if found[2] else "numpy<1.24"))
    return Finding(cause, replace_line(case, source))


@on_error("AttributeError", r"^'(DataFrame|Series)' object has no attribute '(append|iteritems)'")
def old_pandas_method(case: Case, found: re.Match[str]) -> Finding | None:
    """A method that pandas 2 dropped."""
    kind, name = found.groups()
    if not case.went_through("pandas/core/generic.py"):
        return None
    cause = f"pandas dropped {kind}.{name} in version 2"
    if name == "iteritems" and ".iteritems(" in case.source:
        return Finding(
            f"{cause}; items takes its place", replace_line(case, case.source.replace(".iteritems(", ".items("))
        )
    return Finding(
        f"{cause}; pandas.concat takes its place" if name == "append" else cause,
        add_requirement(case.evidence, "pandas<2"),
    )


@on_error(
    "ImportError ModuleNotFoundError",
    r"^(?:No module named|cannot import name) '(sklearn\.\w+|\w+)'(?: from '(sklearn\.\w+)')?",
)
def old_sklearn_name(case: Case, found: re.Match[str]) -> Finding | None:
    """A module or name that scikit-learn moved long ago."""
    moved = {
        "sklearn.cross_validation": "sklearn.model_selection",
        "sklearn.grid_search": "sklearn.model_selection",
        "sklearn.externals": "",
    }
    if found[2] == "sklearn.externals" and found[1] == "joblib":
        cause = "scikit-learn no longer carries joblib: it is a package of its own"
        alone = case.source == "from sklearn.externals import joblib"
        return Finding(cause, replace_line(case, "import joblib") if alone else None)
    new = moved.get(found[1])
    if not new:
        return None
    source = case.source.replace(found[1], new)
    fix = replace_line(case, source) if source != case.source else None
    return Finding(f"the installed scikit-learn no longer has {found[1]}; {new} takes its place", fix)


@on_error(
    "TypeError",
    r"^(?:OneHotEncoder\.)?__init__\(\) got an unexpected keyword argument 'sparse'$",
)
def old_sklearn_argument(case: Case, _found: re.Match[str]) -> Finding | None:
    """An argument that scikit-learn renamed in 1.2 and dropped in 1.4."""
    if "OneHotEncoder(" not in case.source:
        return None
    source = re.sub(r"\bsparse *=", "sparse_output=", case.source)
    return Finding(
        "the installed scikit-learn calls OneHotEncoder's argument sparse_output", replace_line(case, source)
    )


def _use(case: Case, version: str) -> str:
    file = case.evidence.environment_file or "python_env.yaml"
    return (
        f'choose it in {file}:  python: "{version}"'
        if file.endswith((".yaml", ".yml"))
        else f"run it with Python {version}"
    )


def _version(case: Case) -> str:
    return case.evidence.python_version or "of this environment"


def _is_before(case: Case, version: str, *, inclusive: bool = False) -> bool:
    """True when the job's Python is known and older than this minor version, or of it when ``inclusive``."""
    known = re.match(r"(\d+)\.(\d+)", case.evidence.python_version or "")
    if known is None:
        return False
    ours, theirs = (int(known[1]), int(known[2])), tuple(int(part) for part in version.split("."))
    return ours < theirs or (inclusive and ours == theirs)
