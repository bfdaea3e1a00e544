"""From an order to a submitted job: ``launch`` is the whole recipe; read it first."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace

import mlflow

from mlflow_azure_backend import recorder, tracking_store
from mlflow_azure_backend.compute import target_for
from mlflow_azure_backend.compute.base import ComputeTarget
from mlflow_azure_backend.console import Console
from mlflow_azure_backend.errors import TrackingError
from mlflow_azure_backend.files import fault_point
from mlflow_azure_backend.interrupts import command_line_signals, raise_lost
from mlflow_azure_backend.job import RUN_VARIABLE, JobRequest, PreparedJob, TrackingContext, Tracks
from mlflow_azure_backend.journal import Journal, Lease, RunFolder, RunRecord, makeshift_folder, state_home
from mlflow_azure_backend.outputs import list_outputs
from mlflow_azure_backend.planning import Order, counted, plan_job
from mlflow_azure_backend.redaction import without_credentials
from mlflow_azure_backend.repeats import record_order
from mlflow_azure_backend.snapshot import extract_archive, write_archive
from mlflow_azure_backend.source import is_fetchable_commit
from mlflow_azure_backend.submitted_run import AzureSubmittedRun, Tie
from mlflow_azure_backend.sync import sync_silently


def launch(order: Order, tracking: TrackingContext, console: Console, *, waits: bool) -> AzureSubmittedRun:
    """Plan, prepare, record, submit: whatever fails on the way leaves nothing behind.

    Args:
        order: What the user asked for.
        tracking: Where the run is tracked.
        console: Who is told.
        waits: Whether this client is going to wait for the job, which then ends with it.

    Raises:
        BackendError: A mistake of the user's, or of the world's, in one line.
    """
    journal = Journal(state_home(os.environ))
    sync_silently(journal)
    if journal.home.parent == makeshift_folder():
        console.note(f"HOME cannot be written to, so what mlflow-azure must remember is in {journal.home}")
    submission_id = order.submission_id()
    with _interruption_is_said(console), journal.submission(submission_id) as run:
        if (handle := run.handle()) is not None:
            console.note(f"submission {submission_id} is run {handle.name} already")
            return AzureSubmittedRun(
                run, handle, run.try_lease(), *((Tie.WATCHING, console) if waits else (Tie.BACKGROUND,))
            )
        here = order.client_folder
        console.tracking = without_credentials(tracking.uri).replace(f"{here.as_uri()}/", "").replace(f"{here}/", "")
        tracking_store.check_reachable(tracking.uri)
        if (record := run.record()) is not None:  # an earlier client died with it, and nobody has cleared that away
            recorder.end_orphan(record)
        order = replace(order, tracking_uri=tracking.uri)
        request = plan_job(order, submission_id, run.paths.checkout, os.environ, console)
        for note in request.notes:
            console.note(note)
        run.write_json(run.paths.order, asdict(record_order(request, order.parameters)))
        target = target_for(request)
        target.check(request.config, request.options)
        prepared = _prepare(target, request, console)
        lease = run.try_lease()
        try:
            return _submit(target, request, prepared, tracking, journal, run, console, lease, waits=waits)
        except KeyboardInterrupt:
            with tracking_store.hurried():
                _undo(run, lease)
            raise
        except BaseException:
            _undo(run, lease)
            raise


def launch_here(
    order: Order, console: Console, *, experiment_name: str | None, experiment_id: str | None, run_name: str | None
) -> AzureSubmittedRun:
    """``launch`` for our own command line: tracking as MLflow is set up in this process, and the client waits."""
    uri = tracking_store.absolute_tracking_uri(mlflow.get_tracking_uri(), order.client_folder)
    tracking = TrackingContext(
        uri,
        experiment_id=experiment_id,
        experiment_name=experiment_name,
        run_name=run_name,
        parent_run_id=parent_of(uri, os.environ),
    )
    return launch(order, tracking, console, waits=True)


@contextlib.contextmanager
def watching() -> Iterator[None]:
    """For a command that watches a job: its signals, and after Ctrl-C the ends of the runs that the job had started.

    Those are in the job's tree, which has ended; who would have written them down may have been in it, too.
    """
    with command_line_signals():
        try:
            yield
        except KeyboardInterrupt:
            with tracking_store.hurried():
                sync_silently(Journal(state_home(os.environ)))
            raise


@contextlib.contextmanager
def _interruption_is_said(console: Console) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        console.error("interrupted while the job was being submitted, so there is none; run the same command again")
        raise


def parent_of(tracking_uri: str, environ: Mapping[str, str]) -> str | None:
    """The run whose job we are called from, if it is in the same tracking store; None outside of our jobs."""
    return environ.get(RUN_VARIABLE) if environ.get("MLFLOW_TRACKING_URI") == tracking_uri else None


def _prepare(target: ComputeTarget, request: JobRequest, console: Console) -> PreparedJob:
    with console.phase("install") as line:
        prepared = target.prepare(request, line.progress)
        if not prepared.environment_hit:
            packages = counted(len(request.environment.packages), "package")
            line.summary = packages if request.environment.image is None else "image"
    for note in prepared.notes:
        console.note(note)
    return prepared


def _submit(
    target: ComputeTarget,
    request: JobRequest,
    prepared: PreparedJob,
    tracking: TrackingContext,
    journal: Journal,
    run: RunFolder,
    console: Console,
    lease: Lease | None,
    *,
    waits: bool,
) -> AzureSubmittedRun:
    """Each step is on disk before it has an effect, so that whoever comes after a crash can undo or finish it."""
    with console.phase("run") as line:
        tracking = tracking_store.with_experiment(tracking)
        record = _stage(request, prepared, tracking, target.tracks(tracking, prepared), run, journal)
        run.write_record(record)
        fault_point("launching.after_record")
        record = recorder.make_run(request, record)
        run_id = str(record.run_id)
        run.write_record(record)
        fault_point("launching.before_submit")
        raise_lost()
        handle = target.handle_for(run, run_id)
        run.write_handle(handle)
        fault_point("launching.after_handle")
        tie = _tie(request, target, waits=waits)
        target.submit(request, prepared, run, attached=tie is Tie.ATTACHED)
        fault_point("launching.after_submit")
        if record.tracks == "is":
            record = recorder.meet_run(run, record)
        line.summary = f"{record.run_name or record.target}  {run_id[:8]}"
    if record.workspace is not None:
        console.detail("studio", record.workspace.studio_page(run_id))
    if tie in (Tie.ATTACHED, Tie.WATCHING):
        console.begin_output(when_it_comes=target.is_elsewhere)
        return AzureSubmittedRun(run, handle, lease, tie, console)
    submitted = AzureSubmittedRun(run, handle, lease, tie)
    submitted.watch()
    if tie is Tie.DETACHED:
        console.detached(run_id)
    return submitted


def _tie(request: JobRequest, target: ComputeTarget, *, waits: bool) -> Tie:
    if request.config.detach:
        return Tie.DETACHED
    if not waits:
        return Tie.BACKGROUND
    asked = request.config.on_interrupt
    cancels = target.interrupt_cancels if asked is None else asked == "cancel"
    return Tie.ATTACHED if cancels else Tie.WATCHING


def _stage(
    request: JobRequest,
    prepared: PreparedJob,
    tracking: TrackingContext,
    tracks: Tracks,
    run: RunFolder,
    journal: Journal,
) -> RunRecord:
    """Put the snapshot into the run's folder and describe the job to be."""
    run.write_json(run.paths.manifest, request.snapshot.manifest())
    archived_by = journal.archived_by(tracking, request.snapshot.content_hash)
    # A container is given a copy: the project's folder may hold what the snapshot leaves out.
    git, in_snapshot = request.source.git, request.config.workdir == "snapshot" or prepared.image is not None
    is_commit = is_fetchable_commit(request.source) and not request.config.snapshot.include
    to_be_stored = not is_commit and archived_by is None
    if to_be_stored or in_snapshot:
        write_archive(request.snapshot, run.paths.archive)
    owned = [run.paths.checkout] if request.source.is_checkout else []
    owned += [run.paths.outputs] if request.config.outputs else []
    work_folder = request.source.folder
    if in_snapshot:
        work_folder = run.paths.folder / "work"
        extract_archive(run.paths.archive, work_folder, max_size=request.snapshot.size)
        owned.append(work_folder)
    if not to_be_stored:
        run.paths.archive.unlink(missing_ok=True)
    return RunRecord(
        submission_id=request.submission_id,
        target=request.target,
        tracking=tracking,
        created_at=time.time(),
        project_uri=request.source.uri,
        git_commit=None if git is None else git.commit,
        archived_by=archived_by,
        entry_point=request.entry_point.name,
        command=request.entry_point.command,
        parameters={argument.name: argument.logged for argument in request.arguments},
        work_folder=work_folder,
        owned_folders=tuple(owned),
        outputs=list_outputs(work_folder),
        snapshot_hash=request.snapshot.content_hash,
        environment_key=request.environment.key,
        environment_lock=(request.environment.file_name, request.environment.text),
        environment_file=request.environment_file,
        packages=tuple(package.name for package in request.environment.packages),
        python_version=request.environment.python_version,
        timeout=request.config.timeout,
        image=prepared.image_identity,
        job_folder=prepared.job_folder,
        tags=request.config.tags,
        workspace=prepared.workspace,
        tracks=tracks,
    )


def _undo(run: RunFolder, lease: Lease | None) -> None:
    """End what a failed or interrupted submission had begun; what cannot be ended now, ``sync`` ends later."""
    handle, record = run.handle(), run.record()
    if handle is not None:
        AzureSubmittedRun(run, handle, lease, Tie.BACKGROUND).cancel()
        return
    if lease is not None:
        lease.release()
    if record is not None:
        try:
            recorder.end_orphan(record)
        except TrackingError:
            run.postpone()
        else:
            run.discard()
