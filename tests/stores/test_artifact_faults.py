"""Artifacts while the workspace, its storage, or this machine fails."""

from __future__ import annotations

import random
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from mlflow_azure_backend.emulator import EmulatorServer

BIG = random.Random(3).randbytes(17 * 1024 * 1024)
FACADE = "/history/*/artifacts*"
STORAGE = "/azureml/*"
FAULTS = [
    (FACADE, {"kind": "status", "status": 429, "retry_after": 0.01, "times": 3}),
    (FACADE, {"kind": "reset-after"}),
    (FACADE, {"kind": "truncated"}),
    (FACADE, {"kind": "slow", "seconds": 0}),
    (FACADE, {"kind": "expired-token"}),
    (STORAGE, {"kind": "status", "status": 503, "retry_after": 0.01, "times": 3, "after": 1}),
    (STORAGE, {"kind": "reset-before"}),
    (STORAGE, {"kind": "reset-after", "after": 2}),
    (STORAGE, {"kind": "truncated", "method": "GET", "after": 1}),
    (STORAGE, {"kind": "expired-sas", "after": 2}),
]


@pytest.mark.parametrize(
    ("path", "fault"), FAULTS, ids=lambda one: str(one.get("kind")) if isinstance(one, dict) else one
)
def test_a_fault_that_passes_is_not_seen(
    client: MlflowClient,
    run: str,
    workspace: EmulatorServer,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    path: str,
    fault: dict[str, object],
) -> None:
    up, down = tmp_path / "up", tmp_path / "down"
    for folder in (up, down):
        folder.mkdir()
    (up / "small").write_bytes(b"small")
    (up / "big").write_bytes(BIG)
    uri = client.get_run(run).info.artifact_uri
    workspace.fault(path=path, **fault)  # type: ignore[arg-type]
    client.log_artifacts(run, str(up), "folder")
    workspace.clear()
    workspace.fault(path=path, **fault)  # type: ignore[arg-type]
    assert [one.file_size for one in client.list_artifacts(run, "folder")] == [len(BIG), 5]
    workspace.clear()
    workspace.fault(path=path, **fault)  # type: ignore[arg-type]
    mlflow.artifacts.download_artifacts(f"{uri}/folder", dst_path=str(down))
    assert sorted(one.name for one in (down / "folder").iterdir()) == ["big", "small"]
    assert (down / "folder" / "big").read_bytes() == BIG
    assert "sig=" not in caplog.text


def test_what_stays_refused_is_one_line_without_a_secret(
    client: MlflowClient, run: str, workspace: EmulatorServer, tmp_path: Path
) -> None:
    client.log_text(run, "x", "a.txt")
    uri = client.get_run(run).info.artifact_uri
    for path, words in ((FACADE, "ask for a role on the workspace"), (STORAGE, "firewall or private endpoint")):
        workspace.fault("forbidden", path=path, times=None)
        with pytest.raises(mlflow.MlflowException, match=words) as raised:
            mlflow.artifacts.download_artifacts(f"{uri}/a.txt", dst_path=str(tmp_path))
        workspace.clear()
        assert "sig=" not in str(raised.value)
        assert "\n" not in str(raised.value)
    assert [one for one in tmp_path.rglob("*") if "partial" in one.name or one.name == "a.txt"] == []
