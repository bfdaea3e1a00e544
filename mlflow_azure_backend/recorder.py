"""The only writer of a run: its creation, its inputs, its end.

Whatever ends a run reads it from the journal, so that the client, ``python -m mlflow_azure_backend.recorder KEY``
(which the supervisor starts when the client is gone) and ``mlflow-azure sync`` write the same, once: whoever holds
the run's lease.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from mlflow.entities import Param, Run, RunStatus, RunTag
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository

from mlflow_azure_backend.diagnosis import Diagnosis, Evidence, diagnose
from mlflow_azure_backend.environment.image_lock import image_named_in
from mlflow_azure_backend.environment.lock import EnvironmentKind
from mlflow_azure_backend.errors import JournalError, TrackingError
from mlflow_azure_backend.files import fault_point
from mlflow_azure_backend.job import JobRequest, TrackingContext
from mlflow_azure_backend.journal import (
    ARCHIVE_ARTIFACT,
    ORDER_ARTIFACT,
    Journal,
    RunFolder,
    RunRecord,
    state_home,
)
from mlflow_azure_backend.mirror import LEFT_ARTIFACT, mirror_artifacts, mirror_values
from mlflow_azure_backend.outputs import OUTPUTS, changed_outputs, named_outputs
from mlflow_azure_backend.redaction import without_credentials
from mlflow_azure_backend.snapshot import rule_for
from mlflow_azure_backend.source import ProjectSource
from mlflow_azure_backend.status import JobState, JobStatus, TerminationReason
from mlflow_azure_backend.tracking_store import bounded, check_reachable, client_of, limited, store_errors

TAG: Final = "mlflow_azure."
"""Every tag of ours begins with it."""

ARCHIVED_BY: Final = TAG + "archived_by"
"""Names the run whose artifacts hold the archive of a run's snapshot, when they are not its own."""

RERUN_OF: Final = TAG + "rerun_of"
"""Names the run that a run repeats."""

_LOG_TAIL: Final = 64 * 1024
_MANAGERS: Final[Mapping[EnvironmentKind, str]] = {
    "current": "local",
    "python": "uv",
    "conda": "conda",
    "image": "docker",
}
"""The environment managers in MLflow's words."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended, for the user.

    Attributes:
        state: The job's final state.
        run_status: The word of MLflow's ``RunStatus`` that the tracking store has, or will have.
        diagnosis: What went wrong; None when nothing did.
        remark: A line about what user code itself wrote; None when there is nothing to say.
        undelivered: Why the tracking store does not know yet; None when it does.
    """

    state: JobState
    run_status: str
    diagnosis: Diagnosis | None = None
    remark: str | None = None
    undelivered: str | None = None


def make_run(request: JobRequest, record: RunRecord) -> RunRecord:
    """The record with its run: made in the tracking store, or only named where the job's submission will make it.

    Raises:
        TrackingError: The store cannot be reached or refuses; then there is no run, or it has been ended.
    """
    if record.tracks == "is":
        return replace(record, run_id=uuid.uuid4().hex, run_name=record.tracking.run_name)
    info = _create_run(request, record).info
    return replace(record, run_id=info.run_id, run_name=info.run_name, artifact_uri=info.artifact_uri)


def meet_run(run: RunFolder, record: RunRecord) -> RunRecord:
    """The record of a run that its workspace made, with what was not known before; its parameters are logged.

    A store that is away is no reason to end a job: whoever writes the end comes here again.
    """
    try:
        return _met(run, record)
    except TrackingError:
        return record


def _met(run: RunFolder, record: RunRecord) -> RunRecord:
    with store_errors(record.tracking.uri):
        client = client_of(record.tracking.uri)
        info = client.get_run(str(record.run_id)).info
        parameters = [Param(name, value) for name, value in record.parameters.items()]
        if parameters:
            client.log_batch(info.run_id, params=parameters)
    met = replace(record, run_name=info.run_name, artifact_uri=info.artifact_uri)
    run.write_record(met)
    return met


def _create_run(request: JobRequest, record: RunRecord) -> Run:
    """Make the run, with everything that names it, and log its parameters as the user gave them.

    The answer of a server may be lost after it made the run, so a failure looks for the submission's tag first.

    Raises:
        TrackingError: The store cannot be reached or refuses; then there is no run, or it has been ended.
    """
    tracking = record.tracking
    check_reachable(tracking.uri)
    client = client_of(tracking.uri)
    fault_point("recorder.before_create")
    with store_errors(tracking.uri):
        try:
            with limited(retries=0):  # a lost answer and a second post would make a second run
                run = client.create_run(
                    tracking.experiment_id, tags=creation_tags(request, record), run_name=tracking.run_name
                )
        except (MlflowException, TimeoutError):
            found = find_run(tracking, request.submission_id)
            if found is None:
                raise
            run = found
    fault_point("recorder.after_create")
    parameters = [Param(argument.name, argument.logged) for argument in request.arguments]
    if parameters:
        try:
            with store_errors(tracking.uri):
                client.log_batch(run.info.run_id, params=parameters)
        except TrackingError:
            with contextlib.suppress(MlflowException, TimeoutError):
                client.set_terminated(run.info.run_id, "FAILED")
            raise
    return run


def find_run(tracking: TrackingContext, submission_id: str) -> Run | None:
    """The run that a submission made, found by its tag; None when it made none."""
    client = client_of(tracking.uri)
    query = f"tags.`{TAG}submission_id` = '{submission_id}'"
    found = client.search_runs([tracking.experiment_id], query, max_results=1)
    return found[0] if found else None


def metrics_of(record: RunRecord) -> dict[str, float]:
    """The latest value of each metric of a run; none when the store cannot be asked."""
    try:
        check_reachable(record.tracking.uri)
        with store_errors(record.tracking.uri):
            return dict(client_of(record.tracking.uri).get_run(str(record.run_id)).data.metrics)
    except TrackingError:
        return {}


def end_orphan(record: RunRecord) -> None:
    """End the run of a submission whose client died before there was a job, if it had made one.

    Raises:
        TrackingError: The store cannot be reached or refuses.
    """
    check_reachable(record.tracking.uri)
    with store_errors(record.tracking.uri):
        run = find_run(record.tracking, record.submission_id)
        if run is not None and run.info.status == "RUNNING" and record.tracks != "is":
            client = client_of(record.tracking.uri)
            client.set_tag(run.info.run_id, TAG + "reason", TerminationReason.START_FAILED.value)
            client.set_terminated(run.info.run_id, "KILLED")


def record_inputs(run: RunFolder, record: RunRecord) -> None:
    """Store what the run was made from: manifest, snapshot and environment. Harmless when that has been done.

    Raises:
        TrackingError: The store cannot be reached or refuses.
    """
    if run.paths.inputs_recorded.exists():
        return
    lock_name, lock_text = record.environment_lock
    with tempfile.TemporaryDirectory(prefix="mlflow-azure-") as folder, store_errors(record.tracking.uri):
        staging = Path(folder)
        (staging / "snapshot").mkdir()
        (staging / "snapshot" / "manifest.json").symlink_to(run.paths.manifest)
        if run.paths.order.exists():
            (staging / ORDER_ARTIFACT).symlink_to(run.paths.order)
        if run.paths.archive.exists():
            (staging / ARCHIVE_ARTIFACT).symlink_to(run.paths.archive)
        (staging / "environment").mkdir()
        (staging / "environment" / lock_name).write_text(lock_text, encoding="utf-8")
        _artifacts_of(record, _size_of(staging)).log_artifacts(str(staging))
    run.mark_inputs_recorded(record)


def finish(run: RunFolder, state: JobState) -> Ending:
    """Write the end of a run whose job has ended. The caller holds the run's lease.

    Never raises for a tracking store that is away: the journal keeps the end, and ``sync`` delivers it.
    """
    record = run.record()
    if record is None or record.run_id is None:
        raise ValueError(f"submission {run.key} has no run to finish")
    diagnosis = _diagnose(run, record, state)
    try:
        check_reachable(record.tracking.uri)
        if record.artifact_uri is None:
            try:
                record = _met(run, record)
            except TrackingError:
                if run.paths.submitted.exists() or state.reason is not TerminationReason.START_FAILED:
                    raise
                # No job was made, and with it no run.
                told = {"run_status": state.run_status, "remark": None}
                run.mark_recorded({**told, "diagnosis": diagnosis and asdict(diagnosis)})
                return Ending(state, state.run_status, diagnosis)
        record_inputs(run, record)
        _record_outputs(run, record)
        fault_point("recorder.before_end")
        left = _mirror(record, state)
        run_status, remark = _write_end(record, state, diagnosis)
        remark = remark or left
        fault_point("recorder.after_end")
        ending = Ending(state, run_status, diagnosis, remark)
        run.mark_recorded({"run_status": run_status, "remark": remark, "diagnosis": diagnosis and asdict(diagnosis)})
    except (TrackingError, JournalError) as error:
        return Ending(state, state.run_status, diagnosis, undelivered=str(error))
    return ending


def recorded_ending(run: RunFolder, state: JobState) -> Ending:
    """How a run ended whose end somebody else wrote, or is about to write."""
    recorded = run.read_json(run.paths.recorded)
    if recorded is None:
        return Ending(state, state.run_status, undelivered="another client is to write the end, and has not yet")
    diagnosis = recorded.get("diagnosis")
    return Ending(
        state, recorded["run_status"], None if diagnosis is None else Diagnosis(**diagnosis), recorded.get("remark")
    )


def _mirror(record: RunRecord, state: JobState) -> str | None:
    """Copy what the job logged in its workspace; a line about what stays there, None when nothing does."""
    if record.tracks != "mirrors" or state.started_at is None:  # a job that never ran logged nothing, if there was one
        return None
    mirror_values(record)
    if not (left := mirror_artifacts(record)):
        return None
    return f"{len(left)} artifacts are too large to be copied and stay in the workspace: see {LEFT_ARTIFACT}"


def _write_end(record: RunRecord, state: JobState, diagnosis: Diagnosis | None) -> tuple[str, str | None]:
    run_id = str(record.run_id)
    run_status, remark = state.run_status, None
    with store_errors(record.tracking.uri):
        client = client_of(record.tracking.uri)
        if state.status is JobStatus.COMPLETED and record.tracks != "is":
            said = client.get_run(run_id).info.status
            if said in ("FAILED", "KILLED"):
                run_status = said
                remark = f"the program said {said} and then exited with 0: the run stays {said}"
        if run_status != "FINISHED":  # that says all by itself, and each call is one more to wait for
            client.log_batch(run_id, tags=[RunTag(key, value) for key, value in _end_tags(state, diagnosis).items()])
        if record.tracks == "is":  # the workspace ends the run with its job
            return run_status, remark
        ended_at = int((state.ended_at or time.time()) * 1000)
        # Not ``set_terminated``: it would print two lines to stdout, among what the job wrote.
        store = bounded(client._tracking_client.store, record.tracking.uri)
        store.update_run_info(run_id, RunStatus.from_string(run_status), ended_at, run_name=None)
    return run_status, remark


def _end_tags(state: JobState, diagnosis: Diagnosis | None) -> dict[str, str]:
    tags = {TAG + "reason": state.reason.value if state.reason is not None else state.status.value}
    if state.exit_code is not None:
        tags[TAG + "exit_code"] = str(state.exit_code)
    if diagnosis is not None:
        tags[TAG + "cause"] = diagnosis.cause
        tags |= {TAG + "at": diagnosis.at} if diagnosis.at is not None else {}
        tags |= {TAG + "fix": diagnosis.fix} if diagnosis.fix is not None else {}
    return tags


def _record_outputs(run: RunFolder, record: RunRecord) -> None:
    found: dict[str, Path] = {}
    if record.work_folder is not None:
        changed = changed_outputs(record.work_folder, record.outputs)
        found = {path: record.work_folder / OUTPUTS / path for path in changed}
    found |= {path: run.paths.outputs / path for path in named_outputs(run.paths.outputs)}
    with tempfile.TemporaryDirectory(prefix="mlflow-azure-") as folder, store_errors(record.tracking.uri):
        staging = Path(folder)
        (staging / "logs").mkdir()
        if run.paths.log.exists():
            (staging / "logs" / "std_log.txt").symlink_to(run.paths.log)
        for path, file in found.items():
            link = staging / OUTPUTS / path
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file)
        _artifacts_of(record, _size_of(staging)).log_artifacts(str(staging))


def _diagnose(run: RunFolder, record: RunRecord, state: JobState) -> Diagnosis | None:
    if state.status is not JobStatus.FAILED:
        return None
    outcome = run.read_json(run.paths.outcome) or {}
    container = run.read_json(run.paths.container) or {}
    manifest = run.read_json(run.paths.manifest) or {}
    evidence = Evidence(
        exit_code=state.exit_code,
        signal=state.signal,
        reason=state.reason.value if state.reason is not None else "",
        message=state.message,
        log_tail=_tail(run.paths.log, outcome.get("job_folder") or record.job_folder, record.work_folder),
        project_folder=record.work_folder or Path("/"),
        left_out=lambda path: rule_for(manifest, path),
        python_version=record.python_version,
        packages=None if record.packages is None else frozenset(record.packages),
        environment_file=record.environment_file,
        entry_point=record.entry_point,
        parameters=record.parameters,
        tracking_uri=without_credentials(record.tracking.uri),
        oom=container.get("oom", outcome.get("oom")),
        max_rss=outcome.get("max_rss"),
        timeout=record.timeout,
        working_folder_is_snapshot=record.workspace is not None or record.work_folder in record.owned_folders,
        image=image_named_in(record.environment_lock[1]),
        memory_limit=container.get("memory_limit", outcome.get("memory_limit")),
        memory_peak=container.get("memory_peak", outcome.get("memory_peak")),
    )
    return diagnose(evidence)


def creation_tags(request: JobRequest, record: RunRecord) -> dict[str, str]:
    """What names a run from its beginning."""
    tags = {
        "mlflow.user": getpass.getuser(),
        "mlflow.source.name": _source_name(request.source),
        "mlflow.source.type": "PROJECT",
        "mlflow.project.entryPoint": request.entry_point.name,
        "mlflow.project.backend": "azureml",
        "mlflow.project.env": _MANAGERS[request.environment.kind],
        TAG + "submission_id": request.submission_id,
        TAG + "target": request.target,
        TAG + "snapshot": request.snapshot.content_hash,
        TAG + "environment": request.environment.key,
    }
    if record.image is not None:
        tags[TAG + "image"] = record.image
    git = request.source.git
    if git is not None:
        tags["mlflow.source.git.commit"] = git.commit
        tags |= {"mlflow.gitRepoURL": git.repo_url} if git.repo_url is not None else {}
        tags |= {"mlflow.gitBranch": git.branch} if git.branch is not None else {}
    if record.tracking.parent_run_id is not None:
        tags["mlflow.parentRunId"] = record.tracking.parent_run_id
    if record.tracking.rerun_of is not None:
        tags[RERUN_OF] = record.tracking.rerun_of
    if record.archived_by is not None:
        tags[ARCHIVED_BY] = record.archived_by
    return {**tags, **request.config.tags}


def _source_name(source: ProjectSource) -> str:
    """As MLflow writes it: a project in a git repository by its address there, another by its folder."""
    if source.git is None or source.git.repo_url is None:
        return source.uri if source.is_checkout else str(source.folder)
    return f"{source.git.repo_url}#{source.git.subdirectory}" if source.git.subdirectory else source.git.repo_url


def _artifacts_of(record: RunRecord, size: int) -> ArtifactRepository:
    uri = str(record.artifact_uri)
    if urlsplit(uri).scheme == "mlflow-artifacts":
        # MLflow before 3.2 would take the server from the process's own tracking URI, which may be another one.
        uri = MlflowArtifactsRepository.resolve_uri(uri, record.tracking.uri)
    return bounded(get_artifact_repository(uri), record.tracking.uri, size=size)


def _size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _tail(path: Path, job_folder: str | None, work_folder: Path | None) -> bytes:
    """The log's end; the job's own folder as it is called on this machine, where its files can be looked at."""
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, path.stat().st_size - _LOG_TAIL))
            tail = stream.read()
    except OSError:
        return b""
    if job_folder is None or work_folder is None:
        return tail
    return tail.replace(job_folder.encode(), os.fsencode(work_folder))


def main(arguments: list[str], environ: Mapping[str, str]) -> int:
    """End one run whose client is gone: ``python -m mlflow_azure_backend.recorder KEY``."""
    run = RunFolder(Journal(state_home(environ)).home, arguments[0])
    lease = run.try_lease()
    state, record = run.outcome(), run.record()
    if lease is None or run.is_recorded or state is None or record is None:
        return 0
    return 0 if finish(run, state).undelivered is None else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
