"""``mlflow-azure list`` and ``status`` in a journal of 10,000 runs, against the same in one of 20."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

from mlflow_azure_backend.job import JobHandle, TrackingContext
from mlflow_azure_backend.journal import Journal, RunRecord
from tests.benchmarks.bench import Bench
from tests.benchmarks.measure import Cost, Goal, Result, by_turns

_SHORT: Final = 20
_LONG: Final = 10_000
_FILES: Final = ("request.json", "handle.json", "outcome.json", "recorded.json")


def list_and_status(bench: Bench) -> Iterator[Result]:
    """What a user waits for who has worked here for a year."""
    long, short = _journal(bench.folder / "long", _LONG), _journal(bench.folder / "short", _SHORT)
    for name, command in (("list", ["list"]), ("status", ["status", _run_id(7)])):

        def ask(home: Path, command: list[str]) -> Cost:
            return bench.cost(["mlflow-azure", *command], MLFLOW_AZURE_HOME=str(home))

        ((wall, cpu),) = by_turns(partial(ask, long, command), partial(ask, short, command))
        yield Result(
            name, f"`mlflow-azure {name}`, 10,000 runs in the journal", "the same with 20 runs", Goal(1.5), wall, cpu
        )


def _journal(home: Path, count: int) -> Path:
    """One run that the journal has written, and copies of it: to write each durably would take minutes."""
    first = _run_id(0)
    record = RunRecord(
        submission_id=first,
        target="local",
        tracking=TrackingContext("http://127.0.0.1:9", experiment_id="0"),
        created_at=1.0,
        project_uri="/project",
        git_commit=None,
        archived_by=None,
        entry_point="main",
        command="true",
        parameters={"alpha": "0.5"},
        work_folder=Path("/project"),
        owned_folders=(),
        outputs={},
        snapshot_hash="0" * 64,
        environment_key="0" * 64,
        environment_lock=("requirements.txt", "".join(f"package{number}==1.0\n" for number in range(100))),
        environment_file=None,
        packages=tuple(f"package{number}" for number in range(100)),
        python_version="3.11.7",
        run_id=first,
        run_name="gentle-ox-412",
    )
    with Journal(home).submission(first) as run:
        run.write_record(record)
        run.write_handle(JobHandle("local", first, {"folder": str(run.paths.folder)}))
        run.write_json(run.paths.outcome, {"reason": "succeeded", "exit_code": 0, "started_at": 1.0, "ended_at": 2.0})
        run.mark_recorded({"run_status": "FINISHED", "remark": None, "diagnosis": None})
    texts = {name: (run.paths.folder / name).read_text(encoding="utf-8") for name in _FILES}
    for number in range(1, count):
        identity, key = _run_id(number), f"{number:032}"
        folder = home / "runs" / key
        folder.mkdir(mode=0o700)
        for name, text in texts.items():
            (folder / name).write_text(text.replace(first, identity).replace(run.key, key), encoding="utf-8")
        (home / "ids" / identity).write_text(key, encoding="utf-8")
    return home


def _run_id(number: int) -> str:
    return f"{number * 2654435761 % 2**32:08x}{number:024}"  # its beginning is what a user types


CASES = {"list": list_and_status}
