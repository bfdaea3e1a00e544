"""Rows 1, 2, 6, 40 and 41: the client and the supervisor die, fail or are interrupted at every point that has a name."""

from __future__ import annotations

import ast
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults import test_cluster, test_containers
from tests.faults.checker import check, check_environments
from tests.faults.packages import project_with_conda_environment, project_with_environment
from tests.faults.world import FOR_EVER, QUICK, World

PACKAGE = Path(__file__).parents[2] / "mlflow_azure_backend"
INTERRUPTED = 130


@dataclass(frozen=True)
class Point:
    """A fault point of the client's, and what is there when it is reached.

    Attributes:
        name: As in the code.
        run: The run has been made in the store.
        job: The job has been recorded: its end is the run's end.
        ended: The command has ended well before the point is reached.
        builds: It is reached by projects only whose environment is to be built: of which kind.
    """

    name: str
    run: bool = False
    job: bool = False
    ended: bool = False
    builds: str | None = None


POINTS = (
    Point("journal.before_claim"),
    Point("snapshot.before_hashing"),
    Point("environment.resolving", builds="python"),
    Point("environment.before_install", builds="python"),
    Point("environment.before_marker", builds="python"),
    Point("environment.resolving", builds="conda"),
    Point("environment.before_install", builds="conda"),
    Point("environment.before_marker", builds="conda"),
    Point("files.before_replace"),
    Point("snapshot.packing"),
    Point("launching.after_record"),
    Point("recorder.before_create"),
    Point("recorder.after_create", run=True),
    Point("launching.before_submit", run=True),
    Point("launching.after_handle", run=True, job=True),
    Point("local.before_order", run=True, job=True),
    Point("local.after_start", run=True, job=True),
    Point("launching.after_submit", run=True, job=True),
    Point("submitted_run.streaming", run=True, job=True),
    Point("submitted_run.before_finish", run=True, job=True, ended=True),
    Point("recorder.before_end", run=True, job=True, ended=True),
    Point("recorder.after_end", run=True, job=True, ended=True),
    Point("journal.before_settle", run=True, job=True, ended=True),
)
SUPERVISOR_POINTS = ("after_lock", "after_spawn", "after_child_exit", "before_outcome", "after_outcome")


@pytest.mark.always
def test_every_point_in_the_code_is_in_the_matrix() -> None:
    supervisor = {f"supervisor.{name}" for name in SUPERVISOR_POINTS}
    expected = {point.name for point in POINTS} | supervisor | set(test_containers.POINTS) | set(test_cluster.POINTS)
    assert set(points_in_the_code()) == expected


@pytest.mark.parametrize("point", POINTS, ids=lambda point: "-".join(filter(None, (point.name, point.builds))))
@pytest.mark.parametrize("action", ["kill", "raise", "sigint"])
def test_client(world: World, point: Point, action: str) -> None:
    world.write_project(QUICK if point.ended else FOR_EVER)
    if point.builds == "conda":
        project_with_conda_environment(world)
    elif point.builds:
        project_with_environment(world)
    client = world.run(MLFLOW_AZURE_FAULT=f"{point.name}:{action}")
    code = client.wait()
    assert code == {"kill": -signal.SIGKILL, "raise": 1, "sigint": INTERRUPTED}[action], client.err
    world.await_quiet()
    world.next_command()
    says = None if action == "kill" else () if action == "sigint" else (f"fault ordered at {point.name}",)
    starts = world.starts()
    assert starts <= 1
    assert starts or not point.ended  # before that the command may be ended before its first line
    check(
        world,
        runs=1 if point.run else 0,
        starts=starts,
        status="FINISHED" if point.ended else None,
        killed=not point.ended,
        says=says,
        recorded=starts > 0,
        half_built=point.builds is not None and action == "kill",
    )
    assert point.ended or {status for _, status in world.runs()} <= {"KILLED", "FAILED"}
    ready = world.side.read_bytes().count(b"ready") if world.side.exists() else 0
    again = world.run()
    if point.ended:
        assert again.wait() == 0, again.err
    else:
        world.await_child(ready + 1)
        again.signal(signal.SIGINT)
        assert again.wait() == INTERRUPTED, again.err
    check_environments(world)


@pytest.mark.parametrize("point", SUPERVISOR_POINTS)
@pytest.mark.parametrize("action", ["kill", "raise"])
def test_supervisor(world: World, point: str, action: str) -> None:
    world.write_project(QUICK)
    client = world.run(MLFLOW_AZURE_FAULT=f"supervisor.{point}:{action}")
    code = client.wait()
    world.await_quiet()
    world.next_command()
    began = world.starts()
    saw_the_end = point in ("after_child_exit", "before_outcome") and action == "raise"
    done = point == "after_outcome" or saw_the_end
    assert (code == 0) == done, client.err
    said = "finished" if done else "supervisor"
    check(
        world,
        starts=began,
        status="FINISHED" if done else "FAILED",
        killed=not done,
        cut=action == "kill",
        says=(said,),
        recorded=began > 0,
    )


def points_in_the_code() -> Iterator[str]:
    """The names in every ``fault_point("…")``, and in the supervisor's ``_fault("…")``."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
                (argument, *_) = node.args
                if node.func.id == "fault_point":
                    assert isinstance(argument, ast.Constant), f"{path}:{node.lineno}: a point needs a literal name"
                    yield str(argument.value)
                elif node.func.id == "_fault":
                    assert isinstance(argument, ast.Constant)
                    yield f"supervisor.{argument.value!s}"
