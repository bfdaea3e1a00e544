"""Commands that look after runs which were started before."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import click

from mlflow_azure_backend.cli.commands import (
    exit_code_of,
    facts_of,
    follow,
    loading_mlflow,
    run_named,
    say_json,
    synced_journal,
)
from mlflow_azure_backend.compute import target_named
from mlflow_azure_backend.compute.base import ComputeTarget
from mlflow_azure_backend.console import Console
from mlflow_azure_backend.errors import UnknownRun
from mlflow_azure_backend.interrupts import command_line_signals
from mlflow_azure_backend.job import JobHandle, TrackingContext
from mlflow_azure_backend.journal import Journal, RunFolder, state_home
from mlflow_azure_backend.redaction import without_credentials
from mlflow_azure_backend.sync import sync, sync_silently


@click.command("list")
@click.option("--limit", "-n", default=20, show_default=True, help="How many, the newest first.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def list_runs(limit: int, as_json: bool) -> None:
    """List the runs that were started from here.

    \b
    Example: mlflow-azure list -n 5
    """
    away: set[str] = set()
    facts = [facts_of(run, away) for run in synced_journal().latest(limit)]
    if as_json:
        say_json(facts)
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
        for why in [fact["cause"] for fact in facts if fact["status"] == "UNKNOWN" and fact["cause"]]:
            Console().note(why)
    else:
        Console().note("no run was started from here yet; `mlflow-azure run URI` starts one")


@click.command()
@click.argument("run")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def status(run: str, as_json: bool) -> None:
    """Say what has become of a run.

    \b
    Example: mlflow-azure status 4f2a9c1e
    """
    facts = facts_of(run_named(run))
    if as_json:
        say_json(facts)
        return
    console = Console()
    for name, value in facts.items():
        if value not in (None, "", {}):
            console.plain(f"{name:<14} {value}")


@click.command()
@click.argument("run")
@click.option("--follow", "-f", is_flag=True, help="Go on until the job has ended.")
@click.option("--tail", type=click.IntRange(min=0), help="Begin this many lines before the end.")
def logs(run: str, follow: bool, tail: int | None) -> None:
    """Show what a run's job wrote, byte for byte.

    \b
    Example: mlflow-azure logs 4f2a9c1e --tail 200
    """
    target, handle = _job_of(run_named(run))
    console = Console()
    offset = 0 if tail is None else target.offset_of_tail(handle, tail)
    for chunk in target.read(handle, offset, follow=follow):
        console.job_output(chunk)


@click.command()
@click.argument("run")
def attach(run: str) -> None:
    """Follow a run from its beginning, and exit with its exit code. Ctrl-C stops the following, not the job.

    \b
    Example: mlflow-azure attach 4f2a9c1e
    """
    folder = run_named(run)
    with loading_mlflow():
        from mlflow_azure_backend.submitted_run import AzureSubmittedRun

    with command_line_signals():
        follow(AzureSubmittedRun.attach(run))
    sys.exit(exit_code_of(folder))


@click.command()
@click.argument("run")
def cancel(run: str) -> None:
    """End a run's job and all its processes, and write that down.

    \b
    Example: mlflow-azure cancel 4f2a9c1e
    """
    folder = run_named(run)
    with loading_mlflow():
        from mlflow_azure_backend.submitted_run import AzureSubmittedRun

    submitted = AzureSubmittedRun.attach(run, stream=False)
    submitted.cancel()
    sync_silently(Journal(state_home(os.environ)))  # the ends of the runs that the job had started
    Console().note(f"run {submitted.run_id} is {facts_of(folder)['status']}")


@click.command("open")
@click.argument("run")
@click.option("--print", "only_print", is_flag=True, help="Only print the link.")
def open_run(run: str, only_print: bool) -> None:
    """Show a run in the tracking server's pages, or in Azure ML studio: print its link, and open it on a desktop.

    \b
    Example: mlflow-azure open 4f2a9c1e
    """
    tracking, run_id = _whereabouts(run)
    console = Console()
    link = tracking.page_of(run_id, os.environ.get("AZURE_TENANT_ID") or None)
    if link is None:
        store = shlex.quote(without_credentials(tracking.uri))
        console.note("its tracking store has no pages of its own; start some with the line below, then open the link")
        console.plain(f"mlflow ui --backend-store-uri {store}")
        link = TrackingContext("http://127.0.0.1:5000", tracking.experiment_id).page_of(run_id)
        only_print = True
    console.plain(str(link))
    if not only_print and (sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        import webbrowser

        webbrowser.open(str(link))


def _whereabouts(run: str) -> tuple[TrackingContext, str]:
    """Where a run is recorded, and its whole id; one that the journal does not know may still be in the workspace."""
    try:
        record = synced_journal().find(run).record()
    except UnknownRun:
        uri = os.environ.get("MLFLOW_TRACKING_URI", "")
        if not uri.startswith("azureml:"):
            raise
        from mlflow_azure_backend.tracking_store import absolute_tracking_uri

        return TrackingContext(absolute_tracking_uri(uri, Path.cwd())), run
    if record is None or record.run_id is None:
        raise UnknownRun(f"nothing is recorded of run {run}", next_step="see `mlflow-azure list`")
    return record.tracking, record.run_id


@click.command("sync")
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


def _job_of(run: RunFolder) -> tuple[ComputeTarget, JobHandle]:
    handle = run.handle()
    if handle is None:
        raise UnknownRun("the run was never submitted", where=run.key, next_step="`mlflow-azure sync` ends it")
    return target_named(handle.target), handle
