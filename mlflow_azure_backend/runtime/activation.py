"""What activating a conda prefix does to the environment variables, without conda.

conda's ``activate`` puts the prefix's folder of programs first on PATH, sets CONDA_PREFIX and its companions and what
``variables:`` asked for, and sources the scripts in ``etc/conda/activate.d``. So does this; where there are no scripts,
no shell is started.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_OTHERS: Final = frozenset(
    {"VIRTUAL_ENV", "VIRTUAL_ENV_PROMPT", "PYTHONHOME", "__PYVENV_LAUNCHER__", "CONDA_PROMPT_MODIFIER"}
)
_SHELL_OWN: Final = frozenset({"_", "SHLVL", "PWD", "OLDPWD"})


def activated(prefix: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment variables of a process in an activated prefix.

    Args:
        prefix: The conda prefix.
        environ: What they start from; another environment that is active there gives way.
    """
    variables = {name: value for name, value in environ.items() if name not in _OTHERS and not _is_stacked(name)}
    folder = str(prefix / "bin")
    behind = [part for part in environ.get("PATH", os.defpath).split(os.pathsep) if part != folder]
    variables["PATH"] = os.pathsep.join((folder, *behind))
    variables.update(CONDA_PREFIX=str(prefix), CONDA_DEFAULT_ENV=str(prefix), CONDA_SHLVL="1")
    variables.update(_configured(prefix))
    scripts = sorted((prefix / "etc/conda/activate.d").glob("*.sh"))
    return _sourced(scripts, variables) if scripts else variables


def _is_stacked(name: str) -> bool:
    return name.startswith("CONDA_PREFIX_") and name[len("CONDA_PREFIX_") :].isdigit()


def _configured(prefix: Path) -> dict[str, str]:
    """What ``variables:`` set, where conda keeps it too."""
    try:
        text = (prefix / "conda-meta/state").read_text(encoding="utf-8")
    except OSError:
        return {}
    import json

    return {str(name): str(value) for name, value in json.loads(text).get("env_vars", {}).items()}


def _sourced(scripts: list[Path], variables: Mapping[str, str]) -> dict[str, str]:
    """The variables after bash has sourced the scripts, each whatever the one before came to, as conda has it."""
    lines = "".join(f". {shlex.quote(str(script))} >&2 || :\n" for script in scripts)
    reading, writing = os.pipe()
    try:
        with os.fdopen(reading, "rb") as stream:
            # BASH_ENV is for the job's own shell; here it would run the user's start-up file twice.
            environ = {name: value for name, value in variables.items() if name != "BASH_ENV"}
            process = subprocess.Popen(
                ["bash", "--noprofile", "--norc", "-c", f"{lines}exec env -0 >&{writing}"],
                env=environ,
                pass_fds=(writing,),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            os.close(writing)
            writing = -1
            said = stream.read()
            process.wait()
    finally:
        if writing >= 0:
            os.close(writing)
    pairs = (entry.partition("=") for entry in os.fsdecode(said).split("\0") if entry)
    found = {name: value for name, _, value in pairs if name not in _SHELL_OWN}
    kept = {name: variables[name] for name in (*_SHELL_OWN, "BASH_ENV") if name in variables}
    return {**found, **kept} if found else dict(variables)
