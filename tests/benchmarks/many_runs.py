"""P4 and P19: many runs at once from one process, ``synchronous=False``."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tests.benchmarks.bench import Bench
from tests.benchmarks.measure import FEW, PAIRS, Goal, Result

_SLEEP: Final = "name: sleeper\nentry_points:\n  main:\n    command: sleep 2\n"
_MANY: Final = 64
_MB: Final = 1 << 20


def eight(bench: Bench) -> Iterator[Result]:
    """P4: the memory of whatever stands between us and eight jobs, and the time until all have ended."""
    rounds = [(_runs(bench, "azureml", 8), _runs(bench, "local", 8)) for _ in range(FEW + 1)][1:]
    for key, what, limit in (("helpers", "memory of helpers (PSS)", 0.15), ("wall", "wall time", 0.2)):
        ratios = [ours[key] / theirs[key] for ours, theirs in rounds]
        yield Result(f"P4 {key}", f"8 runs, `synchronous=False`: {what}", "MLflow's local backend", Goal(limit), ratios)


def sixty_four(bench: Bench) -> Iterator[Result]:
    """P19: 64 jobs of two seconds at once."""
    rounds = [(_runs(bench, "azureml", _MANY), _popens()) for _ in range(PAIRS + 1)][1:]
    growth = [ours["growth"] / _MB for ours, _ in rounds]
    yield Result("P19 memory", "64 runs at once: growth of the parent (PSS)", "", Goal(64, "MiB"), growth)
    wall = [ours["wall"] / bare for ours, bare in rounds]
    each = statistics.median((ours["wall"] - 2) / _MANY for ours, _ in rounds)
    yield Result(
        "P19 wall",
        "64 runs of 2 s at once: wall time",
        "64 bare `Popen`",
        Goal(2),
        wall,
        (),
        lambda: _of_each(bench, each),
    )
    few = [(_runs(bench, "azureml", _MANY)["wall"] / _MANY, _runs(bench, "local", 8)["wall"] / 8) for _ in range(FEW)]
    theirs = "MLflow's, 8 at once: 64 of its processes would not fit into the memory"
    yield Result("P19 MLflow", "the same, time per run", theirs, Goal(0.1), [ours / peer for ours, peer in few])


def _runs(bench: Bench, backend: str, count: int) -> dict[str, Any]:
    """What ``concurrent_runs.py`` says of ``count`` runs in a fresh process."""
    project = bench.project("sleeper", _SLEEP)
    answer = bench.run(
        [sys.executable, "-W", "ignore", "-m", "tests.benchmarks.concurrent_runs", backend, str(count), str(project)],
        MLFLOW_TRACKING_URI=bench.store("many"),
    )
    result: dict[str, Any] = json.loads(answer.splitlines()[-1])
    return result


def _popens() -> float:
    started = time.perf_counter()
    for process in [subprocess.Popen(["bash", "-c", "sleep 2"]) for _ in range(_MANY)]:
        process.wait()
    return time.perf_counter() - started


def _of_each(bench: Bench, each: float) -> str:
    started = time.perf_counter()
    supervisors = [
        subprocess.Popen([sys.executable, "-I", "-S", "-c", ""], cwd=Path(bench.folder)) for _ in range(_MANY)
    ]
    for process in supervisors:
        process.wait()
    bare = (time.perf_counter() - started) / _MANY
    return (
        f"Beyond its two seconds a run takes {each / bare:.1f} times as long as starting one bare Python process beside "
        f"63 others; the rest is MLflow's store (sqlite takes one writer at a time) and its look-up of the plugin."
    )


CASES = {"P4": eight, "P19": sixty_four}
