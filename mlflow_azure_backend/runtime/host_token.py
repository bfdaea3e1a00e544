"""Tokens from the interpreter that has this package, for jobs beside it in environments that have it not.

Such a job finds these files on its PYTHONPATH, but Azure's libraries are not in its environment; they are in ours.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping

from .clouds import Cloud
from .tokens import NoToken, RenewedToken, TokenSource

PYTHON_VARIABLE = "MLFLOW_AZURE_PYTHON"
"""Holds that interpreter."""
# Without PYTHONPATH and the working folder, which are made for the project's interpreter.
_HOST = (
    "import sys; sys.path.remove(''); from mlflow_azure_backend.workspace.credentials import main; main(sys.argv[1])"
)
_SECONDS = 120.0


def token_of_host(cloud: Cloud, environ: Mapping[str, str]) -> TokenSource | None:
    """Tokens by the interpreter that the environment names; None when it names none."""
    python = environ.get(PYTHON_VARIABLE)
    return None if not python else RenewedToken(lambda: _ask(python, cloud))


def _ask(python: str, cloud: Cloud) -> tuple[str, float]:
    try:
        done = subprocess.run(
            [python, "-E", "-c", _HOST, cloud.name],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            timeout=_SECONDS,
            check=True,
        )
        told = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise NoToken(f"{python} gives no token ({type(error).__name__}), and this job has none of its own") from None
    if "problem" in told:
        raise NoToken(str(told["problem"]))
    return str(told["token"]), float(told["ends"])
