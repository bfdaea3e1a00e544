"""P16: a run in a container, beside ``docker run`` and beside MLflow's ``--build-image``."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Final

from tests.benchmarks.bench import Bench
from tests.benchmarks.local_runs import worker
from tests.benchmarks.measure import FEW, Cost, Goal, Result, by_turns, seconds, timed

FILES: Final = 1_000
_COMMAND: Final = "python -S -c pass"


def in_containers(bench: Bench) -> Iterator[Result]:
    """A trivial command, then a project of 1,000 files of which one has changed each time."""
    image = "mlflow-azure-bench"
    subprocess.run([sys.executable, str(Path(__file__).parents[2] / "tools/base-image"), image], check=True)
    declared = json.dumps(
        {"name": "x", "docker_env": {"image": image}, "entry_points": {"main": {"command": _COMMAND}}}
    )
    trivial = bench.project("container", declared)
    plain = timed(
        lambda: bench.run(["docker", "run", "--rm", image, "bash", "-c", _COMMAND])
    )  # with a network, as ours
    with worker(bench, trivial, bench.store("container")) as costs:
        ((wall, _),) = by_turns(costs("azureml", "local"), plain)
    yield Result(
        "P16",
        "`mlflow.projects.run` warm, a trivial docker project, sqlite",
        "`docker run`",
        Goal(1.05),
        wall,
        why=lambda: _beside(bench, plain, "the peer's"),
    )

    files = {f"part{number:04}.py": f"# {number}\n" * 200 for number in range(FILES)}
    large = bench.project("container of 1,000 files", declared, files)
    with worker(bench, large, bench.store("container-large")) as costs:
        ours, peer = costs("azureml", "local"), costs("local", "local build")
        ((wall, _),) = by_turns(_changed(large, ours), _changed(large, peer), pairs=FEW)
        whole = seconds(peer, 3)
    yield Result(
        "P16 changed",
        "a changed project of 1,000 files",
        "MLflow's `--build-image`",
        Goal(0.15),
        wall,
        why=lambda: (
            f"Of the peer's time a bare `docker run` takes {seconds(plain, 3) / whole:.2f}. "
            + _beside(bench, plain, "that")
        ),
    )


def _beside(bench: Bench, plain: Callable[[], Cost], whose: str) -> str:
    """How long the same command takes with neither engine nor container."""
    here = bench.project("without a container", json.dumps({"entry_points": {"main": {"command": _COMMAND}}}))
    with worker(bench, here, bench.store("without-a-container")) as costs:
        costs("azureml", "local")()
        ours, mlflows = (seconds(costs(backend, "local"), 5) for backend in ("azureml", "local"))
    whole = seconds(plain, 5)
    return (
        f"Of {whose} time the same run without a container takes {ours / whole:.2f} with our backend and"
        f" {mlflows / whole:.2f} with MLflow's own (see P2): the store, the snapshot and the log come on top of a container."
    )


def _changed(project: Path, action: Callable[[], Cost], numbers: count[int] = count()) -> Callable[[], Cost]:  # noqa: B008
    def cost() -> Cost:
        (project / "part0500.py").write_text(f"# changed {next(numbers)}\n")
        return action()

    return cost


CASES = {"P16": in_containers}
