"""The ``mlflow-azure`` command line: each command is a few lines over a room that does the work.

MLflow takes seconds to import, so it is imported only by the commands that talk to a tracking store.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from mlflow_azure_backend import __version__
from mlflow_azure_backend.compute import target_for, target_named
from mlflow_azure_backend.compute.base import ComputeTarget
from mlflow_azure_backend.config import read_config_argument
from mlflow_azure_backend.console import TRACEBACK_VARIABLE, Console, our_mistake
from mlflow_azure_backend.errors import BackendError, UnknownRun
from mlflow_azure_backend.job import JobHandle, TrackingContext
from mlflow_azure_backend.journal import Journal, RunFolder, state_home
from mlflow_azure_backend.planning import Order
from mlflow_azure_backend.redaction import without_credentials
from mlflow_azure_backend.status import JobState, JobStatus
from mlflow_azure_backend.sync import sync, sync_silently

F = TypeVar("F", bound=Callable[..., Any])

INTERRUPTED = 130
"""Exit code after Ctrl-C, as a shell says it: 128 + SIGINT."""


@contextlib.contextmanager
def _loading() -> Iterator[None]:
    """Import MLflow in a good half of its time: Python is not to look for garbage in it, neither now nor at exit."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


class _Commands(click.Group):
    """Ends every mistake of the user's in one line and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BackendError as error:
            Console().error(str(error))
            ctx.exit(1)
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)
        except (click.ClickException, click.Abort, click.exceptions.Exit):
            raise
        except Exception as error:
            if os.environ.get(TRACEBACK_VARIABLE):
                raise
            Console().error(str(our_mistake(error)))
            ctx.exit(1)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mlflow-azure")
def main() -> None:
    """Run MLflow projects, follow them, and look after them."""


def _project_options(command: F) -> F:
    """The options of ``mlflow run`` that say what is to be run."""
    for option in reversed(
        [
            click.argument("uri"),
            click.option("--entry-point", "-e", default="main", show_default=True, help="Entry point, or a script."),
            click.option("--version", "-v", help="Branch, tag or commit of a git project."),
            click.option("--param", "-P", "params", multiple=True, metavar="NAME=VALUE", help="A parameter."),
            click.option("--compute", help="Where to run; the same as the key `compute` of the configuration."),
            click.option("--backend-config", "-c", metavar="FILE|JSON", help="JSON or YAML file, or JSON."),
            click.option(
                "--env-manager",
                type=click.Choice(["local", "virtualenv", "uv", "conda"]),
                help="As for `mlflow run`; `local` is the current interpreter.",
            ),
            click.option("--storage-dir", envvar="MLFLOW_TMP_DIR", help="Where remote `path` parameters go."),
            click.option(
                "--docker-args", "-A", multiple=True, metavar="NAME=VALUE", help="An argument of `docker run`."
            ),
            click.option("--build-image", is_flag=True, help="Bake the project into the image of a docker project."),
        ]
    ):
        command = option(command)
    return command


@main.command()
@_project_options
@click.option("--experiment-name", envvar="MLFLOW_EXPERIMENT_NAME", help="Experiment; made if it does not exist.")
@click.option("--experiment-id", envvar="MLFLOW_EXPERIMENT_ID", help="Experiment, by its id.")
@click.option("--run-name", help="The run's name.")
@click.option("--detach", is_flag=True, help="Return once the job is submitted.")
@click.option("--json", "as_json", is_flag=True, help="Say the run's id, status and exit code as JSON at the end.")
def run(
    experiment_name: str | None,
    experiment_id: str | None,
    run_name: str | None,
    detach: bool,
    as_json: bool,
    **project: Any,
) -> None:
    """Run a project, show its log, and exit with its exit code.

    \b
    Example: mlflow-azure run . -P alpha=0.3
    """
    if experiment_name and experiment_id:
        raise click.UsageError("give only one of --experiment-name and --experiment-id")
    order = _order(**project, detach=detach)
    with _loading():
        from mlflow_azure_backend.backend import launch_here, watching

    with watching():
        submitted = launch_here(
            order, Console(), experiment_name=experiment_name, experiment_id=experiment_id, run_name=run_name
        )
        if not submitted.is_detached:
            submitted.wait()
    _leave(submitted.folder, as_json=as_json, has_ended=not submitted.is_detached)


@main.command("rerun")
@click.argument("run")
@click.option("--param", "-P", "params", multiple=True, metavar="NAME=VALUE", help="In place of a recorded one.")
@click.option("--compute", help="Where to run; by default where the recorded run ran.")
@click.option("--run-name", help="The new run's name.")
@click.option("--detach", is_flag=True, help="Return once the job is submitted.")
@click.option("--json", "as_json", is_flag=True, help="Say the run's id, status and exit code as JSON at the end.")
def rerun_run(
    run: str, params: Sequence[str], compute: str | None, run_name: str | None, detach: bool, as_json: bool
) -> None:
    """Repeat a recorded run from its snapshot, environment lock and parameters, also on another machine.

    \b
    Example: mlflow-azure rerun 4f2a9c1e -P alpha=0.5
    """
    changed = _pairs(params, "-P")
    with _loading():
        from mlflow_azure_backend.backend import watching
        from mlflow_azure_backend.rerun import Changes, rerun

    with watching():
        submitted = rerun(run, Changes(changed, compute, run_name, detach), Console())
        if not submitted.is_detached:
            submitted.wait()
    _leave(submitted.folder, as_json=as_json, has_ended=not submitted.is_detached)


@main.command()
@_project_options
@click.option("--json", "as_json", is_flag=True, help="The whole request as JSON.")
def plan(as_json: bool, **project: Any) -> None:
    """Say what a run would do, and do nothing.

    \b
    Example: mlflow-azure plan . -P alpha=0.3
    """
    from mlflow_azure_backend.planning import Silence, describe, plan_job

    console = Console()
    with tempfile.TemporaryDirectory(prefix="mlflow-azure-") as folder:
        story = Silence() if as_json else console
        order = _order(**project)
        request = plan_job(order, order.submission_id(), Path(folder) / "checkout", os.environ, story)
        target_for(request).check(request.config, request.options)
        if as_json:
            _say_json(describe(request))
            return
        for note in request.notes:
            console.note(note)
        console.detail("compute", request.target)
        console.detail("folder", str(request.source.folder))
        console.detail("command", request.command)


@main.command("list")
@click.option("--limit", "-n", default=20, show_default=True, help="How many, the newest first.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def list_runs(limit: int, as_json: bool) -> None:
    """List the runs that were started from here.

    \b
    Example: mlflow-azure list -n 5
    """
    facts = [facts_of(run) for run in _journal().latest(limit)]
    if as_json:
        _say_json(facts)
    elif facts:
        Console().table(
            ("RUN", "NAME", "STATUS", "EXIT", "STARTED", "PROJECT"),
            [
                (
                    fact["run_id"][:8],
                    fact["run_name"] or "",
                    fact["status"],
                    "" if fact["exit_code"] is None else str(fact["exit_code"]),
                    fact["created_at"],
                    f"{fact['project']} {fact['entry_point']}",
                )
                for fact in facts
            ],
        )
    else:
        Console().note("no run was started from here yet; `mlflow-azure run URI` starts one")


@main.command()
@click.argument("run")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def status(run: str, as_json: bool) -> None:
    """Say what has become of a run.

    \b
    Example: mlflow-azure status 4f2a9c1e
    """
    facts = facts_of(_journal().find(run))
    if as_json:
        _say_json(facts)
        return
    console = Console()
    for name, value in facts.items():
        if value not in (None, "", {}):
            console.plain(f"{name:<14} {value}")


@main.command()
@click.argument("run")
@click.option("--follow", "-f", is_flag=True, help="Go on until the job has ended.")
@click.option("--tail", type=click.IntRange(min=0), help="Begin this many lines before the end.")
def logs(run: str, follow: bool, tail: int | None) -> None:
    """Show what a run's job wrote, byte for byte.

    \b
    Example: mlflow-azure logs 4f2a9c1e --tail 200
    """
    target, handle = _job(_journal().find(run))
    console = Console()
    offset = 0 if tail is None else target.offset_of_tail(handle, tail)
    for chunk in target.read(handle, offset, follow=follow):
        console.job_output(chunk)


@main.command()
@click.argument("run")
def attach(run: str) -> None:
    """Follow a run from its beginning, and exit with its exit code. Ctrl-C stops the following, not the job.

    \b
    Example: mlflow-azure attach 4f2a9c1e
    """
    folder = _journal().find(run)
    with _loading():
        from mlflow_azure_backend.submitted_run import AzureSubmittedRun, StillRunning, command_line_signals

    with command_line_signals():
        try:
            AzureSubmittedRun.attach(run).wait()
        except StillRunning as going_on:
            Console().note(str(going_on))
            sys.exit(INTERRUPTED)
    sys.exit(_exit_code(folder))


@main.command()
@click.argument("run")
def cancel(run: str) -> None:
    """End a run's job and all its processes, and write that down.

    \b
    Example: mlflow-azure cancel 4f2a9c1e
    """
    folder = _journal().find(run)
    with _loading():
        from mlflow_azure_backend.submitted_run import AzureSubmittedRun

    submitted = AzureSubmittedRun.attach(run, stream=False)
    submitted.cancel()
    sync_silently(Journal(state_home(os.environ)))  # the ends of the runs that the job had started
    Console().note(f"run {submitted.run_id} is {facts_of(folder)['status']}")


@main.command("open")
@click.argument("run")
@click.option("--print", "only_print", is_flag=True, help="Only print the link.")
def open_run(run: str, only_print: bool) -> None:
    """Show a run in the tracking server's pages: print its link, and open it on a desktop.

    \b
    Example: mlflow-azure open 4f2a9c1e
    """
    record = _journal().find(run).record()
    if record is None or record.run_id is None:
        raise UnknownRun(f"nothing is recorded of run {run}", next_step="see `mlflow-azure list`")
    console = Console()
    link = record.tracking.page_of(record.run_id)
    if link is None:
        store = shlex.quote(without_credentials(record.tracking.uri))
        console.note("its tracking store has no pages of its own; start some with the line below, then open the link")
        console.plain(f"mlflow ui --backend-store-uri {store}")
        link = TrackingContext("http://127.0.0.1:5000", record.tracking.experiment_id).page_of(record.run_id)
        only_print = True
    console.plain(str(link))
    if not only_print and (sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        import webbrowser

        webbrowser.open(str(link))


@main.command("sync")
def sync_runs() -> None:
    """Write the ends that nobody wrote: of runs whose client or machine died, or whose tracking store was away.

    \b
    Example: mlflow-azure sync
    """
    console = Console()
    lines = list(sync(Journal(state_home(os.environ))))
    for line in lines:
        console.note(line)
    if not lines:
        console.note("every run that has ended is written down")
    if any(run.is_overdue for run in Journal(state_home(os.environ)).active()):
        sys.exit(1)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def doctor(as_json: bool) -> None:
    """Look at this installation, and say for each fault the one line that mends it.

    \b
    Example: mlflow-azure doctor
    """
    from mlflow_azure_backend.doctor import examine

    findings = list(examine(os.environ))
    if as_json:
        _say_json([finding.as_dict() for finding in findings])
    else:
        console = Console()
        for finding in findings:
            console.finding(finding.good, finding.name, finding.found, finding.fix)
    if not all(finding.good for finding in findings):
        sys.exit(1)


def _order(
    *,
    uri: str,
    entry_point: str,
    version: str | None,
    params: Sequence[str],
    compute: str | None,
    backend_config: str | None,
    env_manager: str | None,
    storage_dir: str | None,
    docker_args: Sequence[str],
    build_image: bool,
    detach: bool = False,
) -> Order:
    config = {} if backend_config is None else read_config_argument(backend_config)
    config |= {} if compute is None else {"compute": compute}
    config |= {"detach": True} if detach else {}
    mlflow_keys = {
        "ENV_MANAGER": env_manager,
        "SYNCHRONOUS": True,
        "DOCKER_ARGS": _pairs(docker_args, "-A", flag=True),
        "STORAGE_DIR": storage_dir,
        "build_image": build_image,
        "docker_auth": None,
    }
    tracking = os.environ.get("MLFLOW_TRACKING_URI")
    return Order(uri, entry_point, version, _pairs(params, "-P"), {**config, **mlflow_keys}, Path.cwd(), tracking)


def _pairs(texts: Sequence[str], option: str, *, flag: bool = False) -> dict[str, Any]:
    pairs: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not (equals or flag):
            raise click.UsageError(f"{option} takes NAME=VALUE, got {text!r}")
        if name in pairs:
            raise click.UsageError(f"{option} gives {name!r} twice")
        pairs[name] = value if equals else True
    return pairs


def _journal() -> Journal:
    journal = Journal(state_home(os.environ))
    sync_silently(journal)
    return journal


def _job(run: RunFolder) -> tuple[ComputeTarget, JobHandle]:
    handle = run.handle()
    if handle is None:
        raise UnknownRun("the run was never submitted", where=run.key, next_step="`mlflow-azure sync` ends it")
    return target_named(handle.target), handle


def facts_of(run: RunFolder) -> dict[str, Any]:
    """What is known of a run, as ``list`` and ``status`` say it; times are ISO 8601 with the local offset."""
    record, recorded = run.record(), run.read_json(run.paths.recorded) or {}
    if record is None:
        raise UnknownRun("nothing is recorded of this run", where=run.key)
    handle = run.handle()
    state = JobState(JobStatus.NOT_STARTED) if handle is None else target_named(handle.target).state(handle)
    diagnosis = recorded.get("diagnosis") or {}
    return {
        "run_id": record.run_id,
        "run_name": record.run_name,
        "status": recorded.get("run_status", state.run_status),
        "exit_code": state.exit_code,
        "reason": None if state.reason is None else state.reason.value,
        "cause": diagnosis.get("cause") or state.message,
        "at": diagnosis.get("at"),
        "fix": diagnosis.get("fix"),
        "target": record.target,
        "project": record.project_uri,
        "entry_point": record.entry_point,
        "parameters": dict(record.parameters),
        "created_at": _when(record.created_at),
        "ended_at": _when(state.ended_at),
        "tracking_uri": without_credentials(record.tracking.uri),
        "experiment_id": record.tracking.experiment_id,
        "log": str(run.paths.log),
    }


def _when(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds).astimezone().isoformat(timespec="seconds")


def _exit_code(run: RunFolder) -> int:
    """The job's own; 1 for one that failed without, or whose program said FAILED and exited with 0."""
    facts = facts_of(run)
    if facts["status"] == "FINISHED":
        return 0
    return facts["exit_code"] or 1


def _leave(run: RunFolder, *, as_json: bool, has_ended: bool) -> None:
    """The last words about a run that was started here, and the job's own exit code if it has ended."""
    if as_json:
        _say_json(facts_of(run))
    if has_ended:
        sys.exit(_exit_code(run))


def _say_json(value: object) -> None:
    Console().plain(json.dumps(value, ensure_ascii=False, indent=2))
