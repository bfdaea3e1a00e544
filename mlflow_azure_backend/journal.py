"""What we did, on disk before we did it.

::

    $MLFLOW_AZURE_HOME/
      active/<key>      an empty file for each submission whose end is not yet in the tracking store
      ids/<run id>      holds the key of that run's submission
      containers/<run id>  an empty file for each container of ours that may be there
      archives/<digest> which run of an experiment holds the archive of a snapshot, so that it is stored once
      runs/<key>/       all there is of one submission; the key is a digest of its submission_id
        submit.lock       locked while it is being submitted, so that one submission_id is one job
        lease             locked by whoever will write the run's end: the client while it lives
        request.json      RunRecord: written before the run is made, and again with the run's id
        order.json        what was asked for, for a rerun
        manifest.json     the snapshot's files and what was left out
        snapshot.tar.zst  the snapshot; not for a commit that can be fetched
        checkout/ outputs/ work/  of this run only, removed when its end is recorded
        handle.json       how the job is found: written before it is submitted
        submitted         the workspace has said that it has the job
        std_log.txt supervisor.json outcome.json   written by the supervisor
        container.json    the container's end as the engine told it; written by its attendant
        recorded.json     the run's end is in the tracking store

Files are 0600, folders 0700. Nothing here is ever locked by a process id: a lock dies with its owner.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from pydantic import TypeAdapter, ValidationError

from mlflow_azure_backend.errors import JournalError, UnknownRun
from mlflow_azure_backend.files import (
    fault_point,
    is_locked,
    make_private_folder,
    try_lock,
    unusable,
    wait_for_lock,
    write_durably,
)
from mlflow_azure_backend.job import JobHandle, JobPaths, TrackingContext, Tracks
from mlflow_azure_backend.runtime.reference import WorkspaceReference
from mlflow_azure_backend.status import STATUS_OF_REASON, JobState, TerminationReason

ARCHIVE_ARTIFACT = "snapshot/snapshot.tar.zst"
"""Where among a run's artifacts the archive of its snapshot is."""

ORDER_ARTIFACT = "snapshot/order.json"
"""Where among a run's artifacts that is what a rerun needs to know; ``planning.RecordedOrder`` says what."""

_AWAY_SECONDS = 60.0
"""For how long commands that are about something else leave a store alone that was away."""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What the journal keeps of a request: enough to end, show and repeat the run from another process.

    Attributes:
        submission_id: The idempotency key, also a tag of the run.
        target: Name of the compute target.
        tracking: Where the run is tracked.
        created_at: Seconds since the epoch.
        project_uri: The project as the user named it, without credentials.
        git_commit: The project's commit; None when it has none.
        archived_by: The earlier run that holds the same snapshot's archive; None when this one does, or when the
            snapshot is a git commit and needs none.
        entry_point: Name of the entry point or script.
        command: The command's template.
        parameters: As the user gave them; a secret one is ``***``.
        job_folder: What the job itself calls its work folder; None when it is the same.
        work_folder: Where the command runs; None when that is not on this machine.
        owned_folders: Copies of ours, to be removed with the run's end.
        outputs: Files in ``./outputs`` at the start: path, (bytes, mtime in ns).
        snapshot_hash: The snapshot's content hash.
        environment_key: The environment's key.
        environment_lock: Name and text of the lock file.
        image: What names the container's image best; None for jobs without one.
        environment_file: The file that the user can mend; None for the current interpreter.
        packages: Names of the environment's packages; None when unknown.
        python_version: The environment's Python.
        timeout: Seconds; None for no limit.
        tags: The user's own tags.
        run_id: MLflow's id; None until the run is made.
        run_name: MLflow's name for it.
        artifact_uri: Where its artifacts go; None until it is known.
        workspace: The workspace that the job is in; None for jobs of this machine.
        tracks: How the job's run and the tracking store's belong together.
    """

    submission_id: str
    target: str
    tracking: TrackingContext
    created_at: float
    project_uri: str
    git_commit: str | None
    archived_by: str | None
    entry_point: str
    command: str
    parameters: Mapping[str, str]
    work_folder: Path | None
    owned_folders: tuple[Path, ...]
    outputs: Mapping[str, tuple[int, int]]
    snapshot_hash: str
    environment_key: str
    environment_lock: tuple[str, str]
    environment_file: str | None
    packages: tuple[str, ...] | None
    python_version: str | None
    timeout: float | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    image: str | None = None
    job_folder: str | None = None
    run_id: str | None = None
    run_name: str | None = None
    artifact_uri: str | None = None
    workspace: WorkspaceReference | None = None
    tracks: Tracks = "joins"


def state_home(environ: Mapping[str, str]) -> Path:
    """The folder of the journal: ``$MLFLOW_AZURE_HOME``, else XDG's state folder, else one in the temporary folder."""
    return _home(environ, "MLFLOW_AZURE_HOME", "XDG_STATE_HOME", ".local/state")


def cache_home(environ: Mapping[str, str]) -> Path:
    """The folder of the caches: ``$MLFLOW_AZURE_CACHE``, else XDG's cache folder, else one in the temporary folder."""
    return _home(environ, "MLFLOW_AZURE_CACHE", "XDG_CACHE_HOME", ".cache")


def _home(environ: Mapping[str, str], own: str, xdg: str, below_home: str) -> Path:
    if own_value := environ.get(own):
        return Path(own_value).absolute()
    if xdg_value := environ.get(xdg):
        return Path(xdg_value).absolute() / "mlflow-azure"
    home = environ.get("HOME")  # a folder that is not there cannot be written to either
    if home and os.access(home, os.W_OK):
        return Path(home).absolute() / below_home / "mlflow-azure"
    # Whoever made a folder in the temporary directory before us could exchange what is in it.
    return make_private_folder(makeshift_folder()) / Path(below_home).name


def makeshift_folder() -> Path:
    """What stands for a HOME that is not there or cannot be written to."""
    return Path(tempfile.gettempdir()) / f"mlflow-azure-{os.getuid()}"


class RunFolder:
    """One submission's folder."""

    def __init__(self, home: Path, key: str) -> None:
        self.home = home
        self.key = key
        self.paths = JobPaths(home / "runs" / key)

    @property
    def marker(self) -> Path:
        """There while the run's end is not in the tracking store."""
        return self.home / "active" / self.key

    def write_record(self, record: RunRecord) -> None:
        """Put ``record`` on disk, durably, and make the run findable by its id."""
        write_durably(self.paths.request, _RECORD.dump_json(record))
        if record.run_id is not None:
            write_durably(self.home / "ids" / record.run_id, self.key.encode())

    def record(self) -> RunRecord | None:
        """What was asked for; None when nothing had been written when the client died.

        Raises:
            JournalError: It is damaged.
        """
        try:
            return _RECORD.validate_json(self.paths.request.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            raise JournalError("is damaged", where=self.paths.request, next_step="remove its folder") from error

    def write_json(self, path: Path, content: object) -> None:
        """Put a JSON document of ours on disk, durably."""
        write_durably(path, json.dumps(content, ensure_ascii=False).encode("utf-8", "surrogateescape"))

    def read_json(self, path: Path) -> dict[str, Any] | None:
        """A JSON document of ours; None when it is not there.

        Raises:
            JournalError: It is damaged.
        """
        try:
            content = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise JournalError("is damaged", where=path, next_step="remove its folder") from error
        if not isinstance(content, dict):
            raise JournalError("is damaged", where=path, next_step="remove its folder")
        return content

    def write_handle(self, handle: JobHandle) -> None:
        """Put on disk how the job will be found, before it is submitted."""
        self.write_json(
            self.paths.handle, {"target": handle.target, "name": handle.name, "details": dict(handle.details)}
        )

    def handle(self) -> JobHandle | None:
        """How the job is found; None when its client failed or died before it could have been submitted."""
        content = self.read_json(self.paths.handle)
        return None if content is None else JobHandle(content["target"], content["name"], content["details"])

    def outcome(self) -> JobState | None:
        """How a job that a supervisor owned ended; None while it has not.

        Raises:
            JournalError: It is damaged.
        """
        content = self.read_json(self.paths.outcome)
        if content is None:
            return None
        content = {**content, **self._end_of_container(content)}
        reason = TerminationReason(content["reason"])
        return JobState(
            STATUS_OF_REASON[reason],
            reason,
            exit_code=content.get("exit_code"),
            signal=content.get("signal"),
            started_at=content.get("started_at"),
            ended_at=content.get("ended_at"),
            message=content.get("message"),
        )

    def _end_of_container(self, outcome: Mapping[str, Any]) -> dict[str, Any]:
        """What its container's end says better than the end of the process that stayed with it."""
        found = self.read_json(self.paths.container)
        ended_by_itself = outcome["reason"] in ("succeeded", "exit_code", "signal")
        if found is None or not ended_by_itself:
            return {}
        if found.get("reason") in ("lost", "start_failed"):
            return {"exit_code": None, "signal": None, "reason": found["reason"], "message": found["message"]}
        return {key: found[key] for key in ("signal", "reason", "message") if found.get(key) is not None}

    def container_marker(self, run_id: str) -> Path:
        """There while a container of the run may be."""
        return self.home / "containers" / run_id

    def try_claim(self) -> Lease | None:
        """The right to submit this, or to clear it away; None while a living client is submitting it."""
        descriptor = try_lock(self.submit_lock)
        return None if descriptor is None else Lease(descriptor)

    @property
    def submit_lock(self) -> Path:
        """Locked while a living client is between its first write and the target's receipt."""
        return self.paths.folder / "submit.lock"

    def postpone(self) -> None:
        """The store is away: remember it, so that not every command waits for it."""
        with contextlib.suppress(OSError):
            self.marker.write_bytes(b"away")

    @property
    def is_postponed(self) -> bool:
        """True for a while after the store was found to be away."""
        try:
            found = self.marker.stat()
        except OSError:
            return False
        return found.st_size > 0 and 0 <= time.time() - found.st_mtime < _AWAY_SECONDS

    @property
    def is_recorded(self) -> bool:
        """True when the run's end is in the tracking store."""
        return self.paths.recorded.exists()

    @property
    def is_overdue(self) -> bool:
        """True when the job has ended, nobody alive is writing that down, and it is not written down."""
        if self.is_recorded or self.outcome() is None:
            return False
        return not is_locked(self.paths.lease)

    def try_lease(self) -> Lease | None:
        """The right to write the run's end, or None while somebody alive has it."""
        descriptor = try_lock(self.paths.lease)
        return None if descriptor is None else Lease(descriptor)

    def mark_inputs_recorded(self, record: RunRecord) -> None:
        """Manifest, snapshot and lock are in the tracking store; our own copy of the archive is not needed any more."""
        if self.paths.archive.exists():
            Journal(self.home).remember_archive(record)
            self.paths.archive.unlink()
        _touch(self.paths.inputs_recorded)

    def mark_recorded(self, content: Mapping[str, Any]) -> None:
        """The run's end is in the tracking store: remember it, and drop the copies that only the run needed."""
        record = self.record()
        for folder in record.owned_folders if record is not None else ():
            shutil.rmtree(folder, ignore_errors=True)
        for unfinished in (*self.paths.folder.glob(".*"), *self.paths.folder.glob("*.reserve")):
            unfinished.unlink(missing_ok=True)  # a writer was killed
        self.write_json(self.paths.recorded, {"recorded_at": time.time(), **content})
        fault_point("journal.before_settle")
        self.settle()

    def settle(self) -> None:
        """Nothing remains to be written about this submission."""
        try:
            self.marker.unlink(missing_ok=True)
        except OSError as error:
            raise unusable(self.marker, error) from error

    def discard(self) -> None:
        """Remove every trace of a submission that came to nothing."""
        with contextlib.suppress(JournalError):
            record = self.record()
            if record is not None and record.run_id is not None:
                (self.home / "ids" / record.run_id).unlink(missing_ok=True)
        shutil.rmtree(self.paths.folder, ignore_errors=True)
        self.settle()


class Lease:
    """The right to submit one run, or to write its end; it ends with ``release`` or with the process."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    def release(self) -> None:
        """Give it up; harmless when that has been done."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class Journal:
    """All submissions of one user."""

    def __init__(self, home: Path) -> None:
        self.home = home

    @contextlib.contextmanager
    def submission(self, submission_id: str) -> Iterator[RunFolder]:
        """Hold the only right to submit ``submission_id``; others who ask for the same one wait here.

        If the block fails before anything was recorded, every trace is removed; what was recorded, ``sync`` can end.

        Raises:
            JournalError: The state folder cannot be used.
        """
        key = hashlib.sha256(submission_id.encode()).hexdigest()[:32]
        run = RunFolder(self._make_home(), key)
        claim = self._claim(run)
        try:
            yield run
        except BaseException:
            if not run.paths.request.exists():
                run.discard()
            raise
        finally:
            claim.release()

    def _claim(self, run: RunFolder) -> Lease:
        """Wait for the right to submit, in a folder that is there: another client may have discarded it meanwhile.

        The marker comes before the folder, so that no folder is ever forgotten, and again when nobody can take it away.
        """
        while True:
            if not run.paths.folder.exists():
                _touch(run.marker)
            try:
                make_private_folder(run.paths.folder)
                fault_point("journal.before_claim")
                claim = Lease(wait_for_lock(run.submit_lock))
            except JournalError as error:
                if isinstance(error.__cause__, FileNotFoundError):
                    continue
                raise
            if run.handle() is None:
                _touch(run.marker)
            return claim

    def find(self, run_id: str) -> RunFolder:
        """The folder of a run by its id, or by a beginning of it that fits only one.

        Raises:
            UnknownRun: None, or several.
        """
        names = [name for name in self._names("ids") if name.startswith(run_id)] if run_id else []
        if run_id in names:
            names = [run_id]
        if len(names) == 1:
            return self._submission(names[0])
        if not names:
            raise UnknownRun(f"no run {run_id!r} was started from here", next_step="see `mlflow-azure list`")
        raise UnknownRun(
            f"{len(names)} runs begin with {run_id!r}: {', '.join(sorted(names)[:3])}", next_step="give more of the id"
        )

    def active(self) -> list[RunFolder]:
        """The submissions whose end is not yet in the tracking store."""
        return [RunFolder(self.home, name) for name in self._names("active")]

    def archived_by(self, tracking: TrackingContext, content_hash: str) -> str | None:
        """The run of the same experiment that holds the archive of a snapshot; None when none is known to."""
        try:
            run_id, artifact_uri = self._archive(tracking, content_hash).read_text().splitlines()
        except (OSError, ValueError):
            return None
        root = _local_folder(artifact_uri)
        return run_id if root is None or (root / ARCHIVE_ARTIFACT).exists() else None

    def remember_archive(self, record: RunRecord) -> None:
        """The run's archive is in its artifacts: later runs of the experiment need not store the same again."""
        content = f"{record.run_id}\n{record.artifact_uri}\n"
        write_durably(self._archive(record.tracking, record.snapshot_hash), content.encode())

    def _archive(self, tracking: TrackingContext, content_hash: str) -> Path:
        what = "\n".join((tracking.uri, str(tracking.experiment_id), content_hash))
        return self.home / "archives" / hashlib.sha256(what.encode()).hexdigest()[:32]

    def latest(self, limit: int) -> list[RunFolder]:
        """The newest runs, newest first."""
        try:
            with os.scandir(self.home / "ids") as entries:
                by_age = sorted(((entry.stat().st_mtime_ns, entry.name) for entry in entries), reverse=True)
        except FileNotFoundError:
            return []
        return [self._submission(name) for _, name in by_age[:limit]]

    def _submission(self, run_id: str) -> RunFolder:
        path = self.home / "ids" / run_id
        try:
            return RunFolder(self.home, path.read_text())
        except OSError as error:
            raise unusable(path, error) from error

    def containers(self) -> list[str]:
        """The ids of the runs that may have a container."""
        return self._names("containers")

    def forget_container(self, run_id: str) -> None:
        """It is removed."""
        (self.home / "containers" / run_id).unlink(missing_ok=True)

    def _names(self, folder: str) -> list[str]:
        try:
            return [name for name in os.listdir(self.home / folder) if not name.startswith(".")]  # noqa: PTH208 - speed
        except FileNotFoundError:
            return []
        except OSError as error:
            raise unusable(self.home / folder, error) from error

    def _make_home(self) -> Path:
        for folder in ("", "active", "archives", "containers", "ids", "runs"):
            make_private_folder(self.home / folder)
        return self.home


_RECORD = TypeAdapter(RunRecord)


def _local_folder(artifact_uri: str) -> Path | None:
    """Where artifacts are, if that is on this machine."""
    address = urlsplit(artifact_uri)
    if address.scheme == "file":
        return Path(unquote(address.path))
    return Path(artifact_uri) if not address.scheme else None


def _touch(path: Path) -> None:
    try:
        path.touch(mode=0o600)
    except OSError as error:
        raise unusable(path, error) from error
