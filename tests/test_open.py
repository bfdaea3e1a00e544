"""`mlflow-azure open`, and commands that stay fast in a journal that has grown."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mlflow_azure_backend.job import JobHandle, TrackingContext
from mlflow_azure_backend.journal import Journal, RunRecord

OURS = str(Path(sys.executable).parent / "mlflow-azure")
RECORD = RunRecord(
    submission_id="s",
    target="local",
    tracking=TrackingContext("http://user:hunter2@127.0.0.1:9/", "7"),
    created_at=1.0,
    project_uri="/p",
    git_commit=None,
    archived_by=None,
    entry_point="main",
    command="true",
    parameters={},
    work_folder=Path("/p"),
    owned_folders=(),
    outputs={},
    snapshot_hash="h",
    environment_key="k",
    environment_lock=("requirements.txt", ""),
    environment_file=None,
    packages=None,
    python_version=None,
    run_id="4f2a9c1e",
)


def submit(home: Path, record: RunRecord) -> None:
    """Put a run that has ended, and whose end is written down, into the journal."""
    with Journal(home).submission(record.submission_id) as run:
        run.write_record(record)
        run.write_handle(JobHandle("local", str(record.run_id), {"folder": str(run.paths.folder)}))
        run.write_json(run.paths.outcome, {"reason": "succeeded", "exit_code": 0, "started_at": 1.0, "ended_at": 2.0})
        run.mark_recorded({"run_status": "FINISHED", "remark": None, "diagnosis": None})


def ask(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    return subprocess.run(
        [OURS, *arguments], capture_output=True, text=True, env={**environment, **variables}, timeout=120
    )


def test_a_server_has_a_page_for_it(home: Path) -> None:
    submit(home, RECORD)
    done = ask("open", "4f2a")
    assert (done.returncode, done.stdout) == (0, "http://127.0.0.1:9/#/experiments/7/runs/4f2a9c1e\n")


@pytest.mark.parametrize("options", [[], ["--print"]])
def test_it_is_opened_on_a_desktop_only(home: Path, tmp_path: Path, options: list[str]) -> None:
    submit(home, RECORD)
    browser, opened = tmp_path / "browser", tmp_path / "opened"
    browser.write_text(f"#!/bin/sh\nprintf %s \"$1\" > '{opened}'\n")
    browser.chmod(browser.stat().st_mode | stat.S_IXUSR)
    done = ask("open", "4f2a", *options, DISPLAY=":1", BROWSER=str(browser))
    assert done.returncode == 0
    assert opened.exists() is not bool(options)
    if opened.exists():
        assert opened.read_text() == done.stdout.strip()


@pytest.mark.parametrize(
    ("host", "studio"),
    [
        ("westeurope.api.azureml.ms", "ml.azure.com"),
        ("usgovvirginia.api.ml.azure.us", "ml.azure.us"),
        ("chinaeast2.api.ml.azure.cn", "studio.ml.azure.cn"),
    ],
)
def test_a_workspace_has_its_studio_also_for_runs_that_are_not_in_the_journal(
    home: Path, host: str, studio: str
) -> None:
    workspace = "/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/w"
    uri = f"azureml://{host}/mlflow/v1.0{workspace}"
    submit(home, replace(RECORD, tracking=TrackingContext(uri, "7")))
    page = f"https://{studio}/runs/%s?wsid=/subscriptions/s/resourcegroups/g/workspaces/w%s\n"
    assert ask("open", "4f2a", AZURE_TENANT_ID="").stdout == page % ("4f2a9c1e", "")
    assert ask("open", "gentle_ox", MLFLOW_TRACKING_URI=uri, AZURE_TENANT_ID="t").stdout == page % (
        "gentle_ox",
        "&tid=t",
    )
    assert ask("open", "gentle_ox", MLFLOW_TRACKING_URI="sqlite:////x.db").returncode == 1


def test_a_database_has_none_and_the_line_that_starts_one_is_said(home: Path) -> None:
    submit(home, replace(RECORD, tracking=TrackingContext("sqlite:////a b/m.db", "7")))
    done = ask("open", "4f2a", DISPLAY=":1", BROWSER="false")
    assert done.stdout.splitlines() == [
        "mlflow ui --backend-store-uri 'sqlite:////a b/m.db'",
        "http://127.0.0.1:5000/#/experiments/7/runs/4f2a9c1e",
    ]


def test_list_and_status_read_what_they_show_and_no_more(home: Path) -> None:
    for number in range(60):
        submit(home, replace(RECORD, submission_id=str(number), run_id=f"run{number:02}"))
    for run in Journal(home).latest(60)[5:]:
        run.paths.request.write_text("damaged, which only a reader would find")
    done = ask("list", "-n", "5")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 6
    newest = Journal(home).latest(1)[0].record()
    assert newest is not None
    assert ask("status", str(newest.run_id)).returncode == 0
