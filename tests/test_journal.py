"""What is on disk before it is done."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mlflow_azure_backend.errors import JournalError, UnknownRun
from mlflow_azure_backend.job import JobHandle, TrackingContext
from mlflow_azure_backend.journal import Journal, RunRecord, cache_home, state_home
from mlflow_azure_backend.status import JobStatus, TerminationReason

RECORD = RunRecord(
    submission_id="s",
    target="local",
    tracking=TrackingContext("sqlite:////tmp/x.db", "0"),
    created_at=1.0,
    project_uri="/p",
    git_commit=None,
    archived_by=None,
    entry_point="main",
    command="python {x}",
    parameters={"x": "päth\n"},
    work_folder=Path("/p"),
    owned_folders=(),
    outputs={"a/b": (1, 2)},
    snapshot_hash="h",
    environment_key="k",
    environment_lock=("requirements.txt", "numpy==1\n"),
    environment_file=None,
    packages=("numpy",),
    python_version="3.11.7",
)


def submit(journal: Journal, submission_id: str, run_id: str) -> None:
    with journal.submission(submission_id) as run:
        run.write_record(replace(RECORD, submission_id=submission_id, run_id=run_id))
        run.write_handle(JobHandle("local", run_id))


def test_a_run_is_found_by_the_beginning_of_its_id(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "home")
    submit(journal, "one", "abc1")
    submit(journal, "two", "abd2")
    assert journal.find("abc").record() == replace(RECORD, submission_id="one", run_id="abc1")
    with pytest.raises(UnknownRun, match="2 runs begin with 'ab'"):
        journal.find("ab")
    for nothing in ("x", "", "../runs"):
        with pytest.raises(UnknownRun, match="mlflow-azure list"):
            journal.find(nothing)


def test_an_id_that_another_one_begins_with_is_found(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "home")
    submit(journal, "one", "abc")
    submit(journal, "two", "abcd")
    record = journal.find("abc").record()
    assert record is not None
    assert record.run_id == "abc"


def test_the_newest_come_first(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "home")
    for number in range(3):
        submit(journal, str(number), f"run{number}")
        os.utime(tmp_path / "home" / "ids" / f"run{number}", (number, number))
    names = [record.run_id for run in journal.latest(2) if (record := run.record()) is not None]
    assert names == ["run2", "run1"]


def test_a_submission_that_fails_before_anything_was_recorded_leaves_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "home")
    with pytest.raises(ZeroDivisionError), journal.submission("s") as run:
        assert run.marker.exists()
        raise ZeroDivisionError
    assert not [path for path in (tmp_path / "home").rglob("*") if path.is_file()]
    assert journal.active() == []


def test_a_submission_that_fails_later_is_kept_for_sync(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "home")
    with pytest.raises(ZeroDivisionError), journal.submission("s") as run:
        run.write_record(RECORD)
        raise ZeroDivisionError
    (left,) = journal.active()
    assert left.record() == RECORD


def test_only_one_client_submits_one_id(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from mlflow_azure_backend.journal import Journal\n"
        "with Journal(Path(sys.argv[1])).submission('same') as run:\n"
        "    inside = run.paths.folder / 'inside'\n"
        "    inside.touch(exist_ok=False)\n"
        "    run.write_json(run.paths.folder / f'was_{sys.argv[2]}.json', {})\n"
        "    inside.unlink()\n"
    )
    clients = [
        subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "home"), str(number)]) for number in range(6)
    ]
    assert [client.wait() for client in clients] == [0] * 6
    (folder,) = (tmp_path / "home" / "runs").iterdir()
    assert len(list(folder.glob("was_*.json"))) == 6


def test_an_outcome_is_read_as_the_supervisor_wrote_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "home")
    with journal.submission("s") as run:
        run.write_record(RECORD)
        assert run.outcome() is None
        run.write_json(run.paths.outcome, {"reason": "signal", "exit_code": 137, "signal": 9, "ended_at": 3.5})
        state = run.outcome()
    assert state is not None
    assert (state.status, state.reason) == (JobStatus.FAILED, TerminationReason.SIGNAL)
    assert (state.exit_code, state.signal, state.ended_at) == (137, 9, 3.5)


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"submission_id": 1}', b"\xff"])
def test_a_damaged_record_is_said_in_one_line(tmp_path: Path, damage: bytes) -> None:
    journal = Journal(tmp_path / "home")
    submit(journal, "s", "abc")
    run = journal.find("abc")
    run.paths.request.write_bytes(damage)
    with pytest.raises(JournalError, match="is damaged") as caught:
        run.record()
    assert "\n" not in str(caught.value)


def test_the_lease_is_one_clients(tmp_path: Path) -> None:
    with Journal(tmp_path / "home").submission("s") as run:
        lease = run.try_lease()
        assert lease is not None
        assert run.try_lease() is None
        lease.release()
        lease.release()
        second = run.try_lease()
        assert second is not None
        second.release()


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"MLFLOW_AZURE_HOME": "/x/y"}, "/x/y"),
        ({"XDG_STATE_HOME": "/x"}, "/x/mlflow-azure"),
        ({"HOME": "/"}, "/.local/state/mlflow-azure"),
    ],
)
def test_where_the_state_is(environ: dict[str, str], expected: str) -> None:
    assert state_home(environ) == Path(expected)


def test_without_a_home_the_state_is_in_the_temporary_folder() -> None:
    state, cache = state_home({"HOME": "/nowhere"}), cache_home({})
    assert str(os.getuid()) in str(state)
    assert state != cache
