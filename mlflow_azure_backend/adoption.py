"""A job that another machine submitted, made known here: whoever reaches its workspace may follow it."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from mlflow_azure_backend.errors import UnknownRun, WorkspaceError
from mlflow_azure_backend.job import JobHandle, TrackingContext
from mlflow_azure_backend.journal import Journal, RunFolder, RunRecord
from mlflow_azure_backend.workspace.access import manager_of
from mlflow_azure_backend.workspace.arm import ResourceManager
from mlflow_azure_backend.workspace.finding import find_workspace

_TAG: Final = "mlflow_azure."
_JOB: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,254}")
"""What can be a job's name; anything else would ask for another resource."""


def find_run(journal: Journal, run_id: str, environ: Mapping[str, str]) -> RunFolder:
    """The run of that id, from here or from the workspace that the environment or a ``config.json`` names.

    Args:
        journal: What was started here.
        run_id: Its id, or for one from here a beginning of it.
        environ: The client's variables.

    Raises:
        UnknownRun: Nobody knows it.
    """
    try:
        return journal.find(run_id)
    except UnknownRun:
        try:
            workspace = find_workspace(None, environ.get("MLFLOW_TRACKING_URI"), Path.cwd(), environ)
        except WorkspaceError:
            workspace = None
        if workspace is None or _JOB.fullmatch(run_id) is None:
            raise
        manager = manager_of(workspace, environ)
        job = manager.get(f"/jobs/{run_id}")
        if job is None:
            raise
    return _adopt(journal, manager, job)


def _adopt(journal: Journal, manager: ResourceManager, job: Mapping[str, Any]) -> RunFolder:
    workspace, properties = manager.located(), job["properties"]
    tags: Mapping[str, str] = properties.get("tags") or {}
    record = RunRecord(
        submission_id=tags.get(f"{_TAG}submission_id", f"{workspace.arm_id}/{job['name']}"),
        target="cluster",
        tracking=TrackingContext(workspace.tracking_uri, experiment_name=properties.get("experimentName")),
        created_at=_seconds((job.get("systemData") or {}).get("createdAt")),
        project_uri=tags.get("mlflow.source.name", str(properties.get("codeId") or "")),
        git_commit=tags.get("mlflow.source.git.commit"),
        archived_by=None,
        entry_point=tags.get("mlflow.project.entryPoint", ""),
        command=str(properties.get("command") or ""),
        parameters={},
        work_folder=None,
        owned_folders=(),
        outputs={},
        snapshot_hash=tags.get(f"{_TAG}snapshot", ""),
        environment_key=tags.get(f"{_TAG}environment", ""),
        environment_lock=("", ""),
        environment_file=None,
        packages=None,
        python_version=None,
        run_id=job["name"],
        run_name=properties.get("displayName"),
        workspace=workspace,
        tracks="is",
    )
    with journal.submission(record.submission_id) as run:
        run.write_record(record)
        run.write_handle(JobHandle("cluster", job["name"], asdict(workspace)))
        # Whoever submitted it stores what it was made from; and somebody did submit it.
        for paper in (run.paths.inputs_recorded, run.paths.submitted):
            paper.touch(mode=0o600)
        return run


def _seconds(instant: str | None) -> float:
    try:
        return datetime.fromisoformat(str(instant).replace("Z", "+00:00")).timestamp()
    except ValueError:
        return time.time()
