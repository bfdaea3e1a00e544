"""What a CI system reads: outputs of a step in a file, and workflow commands among the lines that it shows.

The words are GitHub's (docs.github.com: "Workflow commands for GitHub Actions"). Jobs that are started by a job of ours
say nothing: the step belongs to the outermost client.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from mlflow_azure_backend.job import RUN_VARIABLE

BEGIN_GROUP: Final = "::group::log of the job"
"""The line that begins what can be folded away."""
END_GROUP: Final = "::endgroup::"
"""The line that ends it."""

_PLACE: Final = re.compile(r"(?P<file>.+?):(?P<line>\d+)(\s|$)")


def wants_commands(environ: Mapping[str, str]) -> bool:
    """Whether our lines are read by GitHub Actions."""
    return environ.get("GITHUB_ACTIONS") == "true" and RUN_VARIABLE not in environ


def write_outputs(environ: Mapping[str, str], *, run_id: str, status: str, exit_code: int | None) -> None:
    """Append ``run_id``, ``status`` and ``exit_code`` to ``$GITHUB_OUTPUT``, if that is set.

    Args:
        environ: The client's environment variables.
        run_id: MLflow's run id.
        status: The word of MLflow's ``RunStatus``.
        exit_code: The job's own; None, which is written as nothing, when it has none.

    Raises:
        OSError: The file cannot be written.
    """
    path = environ.get("GITHUB_OUTPUT")
    if not path or RUN_VARIABLE in environ:
        return
    with Path(path).open("a", encoding="utf-8") as file:
        file.write(f"run_id={run_id}\nstatus={status}\nexit_code={'' if exit_code is None else exit_code}\n")


def annotation(cause: str, at: str | None, folder: Path | None, environ: Mapping[str, str]) -> str:
    """An error that is shown beside the line that it came from.

    Args:
        cause: What went wrong.
        at: ``FILE:LINE`` below the project's folder, with anything after it; None when it is not known.
        folder: The project's folder; a file below $GITHUB_WORKSPACE is named from there, as the annotation needs it.
        environ: The client's environment variables.
    """
    found = None if at is None else _PLACE.match(at)
    if found is None:
        return error_line(cause)
    file = found["file"]
    workspace = environ.get("GITHUB_WORKSPACE")
    if folder is not None and workspace and (folder / file).is_relative_to(workspace):
        file = (folder / file).relative_to(workspace).as_posix()
    return f"::error file={_escaped(file, in_property=True)},line={found['line']}::{_escaped(cause)}"


def error_line(message: str) -> str:
    """An error that belongs to no line of the project."""
    return f"::error::{_escaped(message)}"


def _escaped(text: str, *, in_property: bool = False) -> str:
    """As the runner unescapes it (``actions/toolkit``, ``packages/core/src/command.ts``)."""
    pairs = [("%", "%25"), ("\r", "%0D"), ("\n", "%0A")]
    pairs += [(":", "%3A"), (",", "%2C")] if in_property else []
    for plain, code in pairs:
        text = text.replace(plain, code)
    return text
