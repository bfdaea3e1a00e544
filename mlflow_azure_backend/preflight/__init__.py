"""What can be said of a run before it starts: what is missing, misspelt or refused, in the diagnosis' own words.

``shell.py`` reads the command as bash will, ``walk.py`` follows it and says where it stumbles. How programs read their
arguments is in ``programs.py`` and ``script.py``, what there is to find in ``site.py``, which parameters are slips in
``typos.py``. Nothing is run, and whatever is not certain is left to the run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mlflow_azure_backend.errors import ProjectError
from mlflow_azure_backend.preflight.shell import UNKNOWN, read_steps
from mlflow_azure_backend.preflight.site import Site, local_site
from mlflow_azure_backend.preflight.typos import meant_parameter
from mlflow_azure_backend.preflight.walk import Stumble, Walk
from mlflow_azure_backend.project import Argument, EntryPoint, ParameterType, is_remote, render_command

__all__ = ["Finding", "Site", "local_site", "look_ahead", "refuse"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong with a run that has not begun.

    Attributes:
        what: What is wrong.
        where: ``MLproject:line``, or the entry point when it stands in no file.
        next_step: What to do; None when there is no advice.
        is_certain: The job is sure to fail for it; else it is a note.
    """

    what: str
    where: str
    next_step: str | None
    is_certain: bool

    def __str__(self) -> str:
        return str(ProjectError(self.what, where=self.where, next_step=self.next_step))


def look_ahead(
    entry_point: EntryPoint, arguments: Sequence[Argument], site: Site, *, environment_file: str | None
) -> tuple[Finding, ...]:
    """Follow an entry point's command as far as it is certain what it will do.

    Args:
        entry_point: What is going to run.
        arguments: Its parameters with their values.
        site: Where it is going to run.
        environment_file: The project's file that describes its environment; None for the current interpreter.

    Raises:
        ProjectError: The command cannot be written with these values; see ``render_command``.
    """
    unknown = {one.name: UNKNOWN for one in arguments if one.is_secret or _is_fetched(one)}
    where = f"entry point '{entry_point.name}'" if entry_point.line is None else f"MLproject:{entry_point.line}"
    walk = Walk(site)
    stumbles = list(walk.follow(read_steps(render_command(entry_point, arguments, unknown))))
    findings = [
        *(_explain(stumble, where, entry_point, arguments, site, environment_file) for stumble in stumbles),
        *_slips(entry_point, arguments, walk),
    ]
    return tuple(dict.fromkeys(findings))


def refuse(findings: Sequence[Finding]) -> None:
    """Refuse a job that is sure to fail.

    Raises:
        ProjectError: Names all that is certain, in one line.
    """
    certain = [finding for finding in findings if finding.is_certain]
    if len(certain) == 1:
        raise ProjectError(certain[0].what, where=certain[0].where, next_step=certain[0].next_step)
    if certain:
        raise ProjectError("; ".join(f"({number}) {finding}" for number, finding in enumerate(certain, start=1)))


def _is_fetched(argument: Argument) -> bool:
    return argument.type is ParameterType.PATH and is_remote(argument.given)


def _slips(entry_point: EntryPoint, arguments: Sequence[Argument], walk: Walk) -> Iterator[Finding]:
    """Undeclared parameters end up at the command's last program, if it is one whose text was read."""
    if walk.program is None or walk.knows_options:
        return
    for argument in arguments:
        meant = None if argument.declared else meant_parameter(argument.name, entry_point, arguments, walk.program)
        if meant is not None:
            what = f"the parameter '{argument.name}' is not declared, and the program does not mention it"
            step = f"did you mean -P {meant}={argument.logged}?"
            yield Finding(what, f"entry point '{entry_point.name}'", step, is_certain=True)


def _explain(
    stumble: Stumble,
    where: str,
    entry_point: EntryPoint,
    arguments: Sequence[Argument],
    site: Site,
    environment_file: str | None,
) -> Finding:
    """A stumble in the words that the diagnosis has for it, whose fixes are proven; else in its own."""
    plain = Finding(stumble.what, where, stumble.next_step, stumble.is_certain)
    if stumble.exit_code is None:
        return plain
    from mlflow_azure_backend.diagnosis import Evidence, diagnose  # needed only when something is wrong
    from mlflow_azure_backend.status import TerminationReason

    said = diagnose(
        Evidence(
            exit_code=stumble.exit_code,
            signal=None,
            reason=TerminationReason.EXIT_CODE.value,
            message=None,
            log_tail=stumble.last_words.encode("utf-8", "replace"),
            project_folder=site.folder,
            left_out=site.rule,
            python_version=None,
            packages=None,
            environment_file=environment_file,
            entry_point=entry_point.name,
            parameters={argument.name: argument.logged for argument in arguments},
            tracking_uri="",
            oom=None,
            max_rss=None,
            timeout=None,
            working_folder_is_snapshot=site.snapshot is not None,
        )
    )
    if said.cause_id == "unknown":
        return plain
    fix = said.fix
    if fix is None or "  " in fix.rpartition(":  ")[2]:  # an error is one line, in which no spaces can be counted
        fix = stumble.next_step
    return Finding(said.cause, where, fix, stumble.is_certain)
