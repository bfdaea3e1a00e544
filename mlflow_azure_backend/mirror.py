"""A workspace's run copied into the tracking store that the user chose, which the job itself cannot reach.

Parameters, tags and metrics are copied as they are, so that copying them again changes nothing; artifacts once, at the
end, and those that are too large stay in the workspace, where a file among the run's artifacts says so.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from mlflow_azure_backend.errors import TrackingError
from mlflow_azure_backend.journal import RunRecord
from mlflow_azure_backend.runtime.reference import WorkspaceReference
from mlflow_azure_backend.tracking_store import client_of, store_errors

MOST_BYTES: Final = 100_000_000
"""Larger artifacts stay in the workspace."""
LEFT_ARTIFACT: Final = "left_in_workspace.json"
"""Among the run's artifacts: which ones are in the workspace only, with their sizes in bytes, and where that is."""
_BATCH: Final = 1000
"""Metrics, and parameters and tags, that one call takes (MLflow's own limits are 1,000, 100 and 100)."""
_SMALL_BATCH: Final = 100
_PAUSE_SECONDS: Final = 10.0
"""Between two copies of a run that goes on."""
_OURS: Final = ("mlflow.", "mlflow_azure.", "azureml.")
"""Tags that each run has of its own."""
_SERVICE_FOLDERS: Final = ("user_logs", "system_logs", "azureml-logs", "logs")
"""Artifacts that the service keeps of every job; what the command wrote is stored from here."""


def mirror_values(record: RunRecord) -> None:
    """Copy parameters, tags and metrics.

    Raises:
        TrackingError: One of the two stores cannot be reached, or refuses.
    """
    run_id = str(record.run_id)
    with store_errors(_workspace(record).tracking_uri):
        source = _source(record)
        data = source.get_run(run_id).data
        metrics = [one for key in data.metrics for one in source.get_metric_history(run_id, key)]
    with store_errors(record.tracking.uri):
        target = client_of(record.tracking.uri)
        known = target.get_run(run_id).data
        # Databases drop a value that they have; a store of files would have it twice.
        there = {_point(one) for key in known.metrics for one in target.get_metric_history(run_id, key)}
        metrics = [one for one in metrics if _point(one) not in there]
        params = [Param(key, value) for key, value in data.params.items() if key not in known.params]
        tags = [RunTag(key, value) for key, value in data.tags.items() if _is_new(key, value, known.tags)]
        for batch in _batches(metrics, _BATCH):
            target.log_batch(run_id, metrics=batch)
        for parameters in _batches(params, _SMALL_BATCH):
            target.log_batch(run_id, params=parameters)
        for tagged in _batches(tags, _SMALL_BATCH):
            target.log_batch(run_id, tags=tagged)


def mirror_artifacts(record: RunRecord, *, most_bytes: int = MOST_BYTES) -> dict[str, int]:
    """Copy artifacts, each up to ``most_bytes``; returns the sizes of those that were left, by path.

    Raises:
        TrackingError: One of the two stores cannot be reached, or refuses.
    """
    run_id = str(record.run_id)
    left: dict[str, int] = {}
    with tempfile.TemporaryDirectory(prefix="mlflow-azure-") as folder:
        with store_errors(_workspace(record).tracking_uri):
            source = _source(record)
            for path, size in _artifacts(source, run_id, ""):
                if size > most_bytes:
                    left[path] = size
                else:
                    _download(source, run_id, path, Path(folder, path))
        if left:
            told = {"where": _workspace(record).studio_page(run_id), "bytes": left}
            Path(folder, LEFT_ARTIFACT).write_text(json.dumps(told, indent=1), encoding="utf-8")
        if any(Path(folder).iterdir()):
            with store_errors(record.tracking.uri):
                client_of(record.tracking.uri).log_artifacts(run_id, folder)
    return left


@contextlib.contextmanager
def live(record: RunRecord) -> Iterator[None]:
    """Copy the values now and then while the block lasts; a store that is away now is told at the end."""
    ended = threading.Event()

    def copy() -> None:
        while not ended.wait(_PAUSE_SECONDS):
            with contextlib.suppress(TrackingError):
                mirror_values(record)

    thread = threading.Thread(target=copy, name=f"mlflow-azure-mirror-{str(record.run_id)[:8]}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
    thread.join(_PAUSE_SECONDS)  # unless somebody leaves: who copies next must not meet it halfway


def _download(source: MlflowClient, run_id: str, path: str, target: Path) -> None:
    """One file; where MLflow itself puts it below a folder is not the same in all of its versions."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        shutil.move(source.download_artifacts(run_id, path, folder), target)


def _source(record: RunRecord) -> MlflowClient:
    return client_of(_workspace(record).tracking_uri)


def _workspace(record: RunRecord) -> WorkspaceReference:
    if record.workspace is None:
        raise ValueError("only the run of a workspace's job is mirrored")
    return record.workspace


def _point(metric: Metric) -> tuple[str, str, int, int]:
    """What makes a value of a metric the same; as text, for no NaN is equal to itself."""
    return metric.key, repr(metric.value), metric.timestamp, metric.step


def _is_new(key: str, value: str, known: Mapping[str, str]) -> bool:
    return not key.startswith(_OURS) and known.get(key) != value


def _batches(values: list[Metric] | list[Param] | list[RunTag], size: int) -> Iterator[list]:  # type: ignore[type-arg]
    for start in range(0, len(values), size):
        yield values[start : start + size]


def _artifacts(source: MlflowClient, run_id: str, folder: str) -> Iterator[tuple[str, int]]:
    for one in source.list_artifacts(run_id, folder or None):
        if not folder and one.path in _SERVICE_FOLDERS:
            continue
        if one.is_dir:
            yield from _artifacts(source, run_id, one.path)
        else:
            yield one.path, one.file_size or 0
