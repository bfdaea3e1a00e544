"""Causes of failed imports: what is not installed, not in the snapshot, not in this Python, or hidden."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import PurePosixPath
from typing import Final

from mlflow_azure_backend.diagnosis.case import (
    Case,
    Finding,
    add_requirement,
    closest,
    on_error,
    on_last_words,
    replace_line,
    set_config,
    set_variable,
)
from mlflow_azure_backend.diagnosis.ending import read_source
from mlflow_azure_backend.diagnosis.names import LIBRARY_PACKAGES, distribution_of, is_standard
from mlflow_azure_backend.diagnosis.traceback_reader import path_in_project

_IMPORT_ERRORS: Final = "ImportError ModuleNotFoundError"
_NO_MODULE: Final = r"^No module named '([\w.]+)'"
_INCOMPLETE: Final = (
    r"; '(\w+)' is not a package$|^(?:partially initialized )?module '(\w+)' has no attribute"
    r"|^cannot import name '\w+' from (?:partially initialized module )?'(\w+)'"
)
# Python itself has imported these before it looks beside the script.
_ALREADY_IMPORTED: Final = frozenset(
    {*sys.builtin_module_names, "abc", "codecs", "encodings", "genericpath", "importlib", "io", "ntpath", "os"}
    | {"posixpath", "runpy", "site", "stat", "zipimport"}
)
_DEFINITION = re.compile(r"(?m)^(?:async +def|def|class) +(\w+)|^(\w+)(?: *:[^=\n]+)? *=(?!=)")


@on_error(_IMPORT_ERRORS, r"^No module named 'mlflow'$")
def no_mlflow(case: Case, _found: re.Match[str]) -> Finding | None:
    """The one package that every tracked project needs."""
    if not {"mlflow", "mlflow-skinny"}.isdisjoint(case.evidence.packages or ()):
        return None
    where = case.evidence.environment
    return Finding(f"{where} has no mlflow, which {case.place} imports", add_requirement(case.evidence, "mlflow"))


@on_error(_IMPORT_ERRORS, r"^No module named '(azureml(?:\.\w+)*)'")
def azureml_sdk(case: Case, found: re.Match[str]) -> Finding:
    """The retired SDK: this backend gives the run through MLflow instead."""
    module = found[1]
    cause = f"{case.place} imports {module}, the retired Azure ML SDK v1, which this environment does not have"
    if case.source.startswith(("from azureml.core import Run", "from azureml.core.run import Run")):
        cause += "; MLflow takes its place: run.log(name, value) becomes mlflow.log_metric(name, value)"
        return Finding(cause, replace_line(case, "import mlflow"))
    if module.startswith("azureml.mlflow") or "azureml.mlflow" in case.source:
        return Finding(f"{cause}; MLflow needs no such import here", f"delete {case.place}:  {case.source}")
    return Finding(f"{cause}; MLflow and azure-ai-ml take its place", add_requirement(case.evidence, "azure-ai-ml"))


@on_error(_IMPORT_ERRORS, _NO_MODULE)
def left_out_module(case: Case, found: re.Match[str]) -> Finding | None:
    """The module is a file of the project that the snapshot left out."""
    stem = found[1].replace(".", "/")
    homes = dict.fromkeys((_script_folder(case), ""))
    out = case.left_out(f"{home}{stem}{end}" for home in homes for end in (".py", "/__init__.py", ""))
    if out is None:
        return None
    path, rule = out
    fix = f"take it into the snapshot:  {set_config('snapshot', {'include': [path]})}"
    return Finding(f"{path} exists here but was left out by {rule}", fix)


@on_error(_IMPORT_ERRORS, r"^No module named '(\w+)'$")
def module_elsewhere(case: Case, found: re.Match[str]) -> Finding | None:
    """The module is a file of the project, in a folder that Python does not search."""
    name = found[1]
    if distribution_of(name) is not None or is_standard(name):
        return None
    files = [PurePosixPath(file) for file in case.files()]
    homes = {file.parent for file in files if file.name == f"{name}.py"}
    homes |= {file.parent.parent for file in files if file.name == "__init__.py" and file.parent.name == name}
    if len(homes) != 1:
        return None
    home = str(homes.pop())
    if f"{home}/" == (_script_folder(case) or "./"):
        return None  # Python does look there, so something else is wrong
    place = "the project folder itself" if home == "." else f"{home}/"
    cause = f"the module {name} is in {place}, where Python does not look: it looks beside the script only"
    return Finding(cause, f"let it look there:  {set_variable('PYTHONPATH', home)}")


@on_error(f"{_IMPORT_ERRORS} AttributeError", _INCOMPLETE)
def shadowed_module(case: Case, found: re.Match[str]) -> Finding | None:
    """A file of the user's has the name of the package that was meant."""
    name = next(filter(None, found.groups()))
    if name in _ALREADY_IMPORTED or not (is_standard(name) or distribution_of(name)):
        return None
    file = f"{_script_folder(case)}{name}.py"
    if not case.exists(file):
        return None
    renamed = f"mv {shlex.quote(file)} {shlex.quote(f'{_script_folder(case)}my_{name}.py')}"
    return Finding(f"{file} hides the package {name}, because Python looks beside the script first", renamed)


@on_error("ImportError", r"^cannot import name '(\w+)' from partially initialized module '([\w.]+)'")
def circular_import(_case: Case, found: re.Match[str]) -> Finding:
    """Two modules of the project import each other."""
    return Finding(f"circular import: {found[2]} is imported again before it has defined {found[1]}")


@on_error("ImportError", r"^attempted relative import with no known parent package$")
def relative_import(case: Case, _found: re.Match[str]) -> Finding | None:
    """A module of a package was started as a script."""
    if case.file is None:
        return None
    cause = f"{case.file} was started as a script, and a script has no package to import from relatively"
    module = case.file.removesuffix(".py").replace("/", ".")
    if "." in module:
        return Finding(cause, f"in the command of MLproject, start it as a module:  python -m {module}")
    if re.match(r"from \.\w", case.source):
        return Finding(cause, replace_line(case, case.source.replace("from .", "from ", 1)))
    return None


@on_error(_IMPORT_ERRORS, r"^cannot import name '(\w+)' from '([\w.]+)' \((.+)\)")
def missing_name(case: Case, found: re.Match[str]) -> Finding | None:
    """The module is there, and defines no such name."""
    name, module, path = found.groups()
    own = path.removeprefix(f"{case.evidence.project_folder}/")
    source = read_source(case.evidence.project_folder, own) if case.exists(own) and own != path else None
    if source is None:
        version = f" {module.split('.')[0]}" if distribution_of(module) else ""
        return Finding(f"the installed{version} module {module} has no {name}") if "-packages" in path else None
    defined = [first or second for first, second in _DEFINITION.findall(source)]
    meant = closest(name, defined)
    if name in defined:
        return None
    fixed = re.sub(rf"\b{name}\b", meant, case.source) if meant is not None else ""
    fix = replace_line(case, fixed) if fixed != case.source and fixed else None
    return Finding(f"{own} has no {name}" + ("" if meant is None else f", but {meant}"), fix)


@on_error(_IMPORT_ERRORS, _NO_MODULE)
def missing_module(case: Case, found: re.Match[str]) -> Finding:
    """Nothing of that name is installed."""
    return _not_installed(case, found[1])


@on_last_words((1,), r"\S*python[\d.]*: No module named '?([\w.]+?)'?(?:\.__main__)?")
def missing_main_module(case: Case, found: re.Match[str]) -> Finding:
    """``python -m`` found nothing of that name."""
    return _not_installed(case, found[1])


@on_error(
    "ImportError OSError", r"^(lib[\w.+-]+?\.so[\w.]*): cannot open shared object file: No such file or directory$"
)
def missing_library(_case: Case, found: re.Match[str]) -> Finding:
    """A Python package needs a library of the system."""
    return _library_not_found(found[1])


@on_last_words((127,), r".*error while loading shared libraries: (lib[\w.+-]+): cannot open shared object file: .*")
def missing_library_of_program(_case: Case, found: re.Match[str]) -> Finding:
    """A program needs a library of the system."""
    return _library_not_found(found[1])


@on_error(
    "ValueError ImportError",
    r"numpy\.dtype size changed, may indicate binary incompatibility|numpy\.core\.multiarray failed to import",
)
def binary_mismatch(case: Case, _found: re.Match[str]) -> Finding:
    """A package was compiled against another NumPy."""
    cause = "an installed package was compiled for another major version of NumPy than the one installed"
    return Finding(cause, add_requirement(case.evidence, "numpy<2"))


@on_error("ImportError OSError", r"version `(GLIBC(?:XX)?_[\d.]+)' not found")
def system_too_old(_case: Case, found: re.Match[str]) -> Finding:
    """A package was compiled for a newer Linux."""
    return Finding(f"an installed package needs {found[1]}, which this machine's C or C++ library is too old for")


def _not_installed(case: Case, module: str) -> Finding:
    evidence = case.evidence
    if is_standard(module):
        package = "python3-tk" if "tkinter" in module else None
        fix = None if package is None else f"apt-get install -y {package}"
        return Finding(f"this Python was built without its own module {module}", fix)
    distribution = distribution_of(module)
    where = (
        evidence.environment if evidence.environment_file is None else f"the environment of {evidence.environment_file}"
    )
    if distribution is None:
        return Finding(f"{where} has no module {module}", f"add the package that provides {module} to the environment")
    if evidence.packages is not None and _normalised(distribution) in map(_normalised, evidence.packages):
        return Finding(f"the module {module} is not found, although {where} has {distribution}")
    named = "" if distribution == module else f" (package {distribution})"
    return Finding(f"{where} has no module {module}{named}", add_requirement(evidence, distribution))


def _library_not_found(library: str) -> Finding:
    package = LIBRARY_PACKAGES.get(library)
    fix = f"apt-get install -y {package}" if package else f"find its package:  apt-file search {library}"
    return Finding(f"the shared library {library} is not on this machine", fix)


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _script_folder(case: Case) -> str:
    """The folder of the started script, where Python looks first: with its slash, empty for the project's own."""
    frames = () if case.error is None else case.error.frames
    files = (path_in_project(frame.path, case.evidence.project_folder) for frame in frames)
    script = next((file for file in files if file is not None), "")
    return script[: script.rfind("/") + 1]
