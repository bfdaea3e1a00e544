"""Causes in the data and in the values that the parameters gave."""

from __future__ import annotations

import re

from mlflow_azure_backend.diagnosis.case import Case, Finding, closest, on_error, replace_line, set_parameter
from mlflow_azure_backend.diagnosis.ending import read_source

_DATA_FILES = (".csv", ".tsv", ".txt")
_MISSING = re.compile(r"\"?(?:None of \[?(?:Index\()?)?\[?'([^']+)'(?P<more>, ')?")


@on_error("KeyError", r"^(?:'[^']+'|\"[^\"]+\")$")
def missing_column(case: Case, found: re.Match[str]) -> Finding | None:
    """Pandas looked for a column, and says that there is none of that name."""
    if not case.went_through("pandas/core/frame.py") or not _was_a_column(case, found[0]):
        return None
    named = _MISSING.match(found[0])
    if named is None or named["more"]:
        return None
    name = named[1]
    columns = {column: file for file in case.named_files() for column in _header(case, file)}
    meant = closest(name, columns)
    if name in columns or meant is None:
        return None if name in columns else Finding(f"the data frame has no column {name!r}")
    cause = f"the data frame has no column {name!r}; {columns[meant]} has {meant!r}"
    parameter = case.parameter_with_value(name)
    if parameter is not None:
        return Finding(cause, set_parameter(parameter, meant))
    source = re.sub(rf"(?<=[\"']){re.escape(name)}(?=[\"'])", lambda _: meant, case.source)
    return Finding(cause, replace_line(case, source) if source != case.source else None)


@on_error("ValueError", r"^Input (?:X |y )?contains NaN\.?$")
def missing_values(case: Case, _found: re.Match[str]) -> Finding | None:
    """scikit-learn refuses missing values."""
    if not case.went_through("sklearn/utils/validation.py"):
        return None
    return Finding(
        f"the data that {case.place} gives to scikit-learn has missing values (NaN)",
        "fill them before:  sklearn.impute.SimpleImputer()",
    )


@on_error(
    "ValueError",
    r"^could not convert string to float: '([^']*)'$|^invalid literal for int\(\) with base 10: '([^']*)'$",
)
def wrong_type(case: Case, found: re.Match[str]) -> Finding | None:
    """The user's own ``int()`` or ``float()`` of a parameter's value."""
    kind, value = ("float", found[1]) if found[1] is not None else ("int", found[2])
    name = case.parameter_with_value(value)
    if name is None or case.error is None or case.error.frames[-1] != case.frame or f"{kind}(" not in case.source:
        return None
    return wrong_parameter(name, kind, value)


def wrong_parameter(name: str, kind: str, value: str) -> Finding:
    """The finding that a parameter's value is not of its type."""
    better = _as_number(kind, value)
    example = set_parameter(name, better) if better is not None else f"-P {name}=<{kind}>"
    article = "an" if kind[0] in "aeiou" else "a"
    return Finding(
        f"the parameter {name} is {value!r}, which is not {article} {kind}", f"give {article} {kind}:  {example}"
    )


def _as_number(kind: str, value: str) -> str | None:
    """The number that was surely meant; None when that is not clear."""
    text = value.strip()
    if kind == "float" and re.fullmatch(r"[+-]?\d{1,20},\d{1,20}", text):
        return text.replace(",", ".")
    if kind == "int" and re.fullmatch(r"[+-]?\d{1,20}\.0+", text):
        return text.partition(".")[0]
    if kind == "int" and re.fullmatch(r"[+-]?\d{1,3}([_, ]\d{3})+", text):
        return re.sub(r"[_, ]", "", text)
    return None


def _was_a_column(case: Case, message: str) -> bool:
    """True when pandas looked among the columns, not among the rows."""
    sources = " ".join(frame.source for frame in (() if case.error is None else case.error.frames[-4:]))
    return "columns" in message or any(
        sign in sources for sign in ("self.columns.get_loc(", 'self.columns._get_indexer_strict(key, "columns")')
    )


def _header(case: Case, file: str) -> list[str]:
    if not file.endswith(_DATA_FILES):
        return []
    text = read_source(case.evidence.project_folder, file) or ""
    return [name.strip().strip("\"'") for name in re.split(r"[,;\t]", text.partition("\n")[0][:10_000])]
