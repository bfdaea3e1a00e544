"""A process that submits a project several times at once and says what that took: BACKEND COUNT PROJECT."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from pathlib import Path

import mlflow

from tests.benchmarks.supervising import pss

_JOBS = (b"bash", b"sleep")


def main(backend: str, count: int, project: str) -> None:
    """Run once to warm up, then ``count`` times at once."""
    logging.disable()
    _submit(backend, project).wait()
    before, helpers, done = pss(os.getpid()), [0], threading.Event()
    sampling = threading.Thread(target=_sample, args=(helpers, done))
    sampling.start()
    started = time.perf_counter()
    submitted = [_submit(backend, project) for _ in range(count)]
    grown = pss(os.getpid()) - before
    for run in submitted:
        if not run.wait():
            raise RuntimeError(f"run {run.run_id} is {run.get_status()}")
    wall = time.perf_counter() - started
    done.set()
    sampling.join()
    print(json.dumps({"wall": wall, "helpers": max(helpers), "growth": grown}))


def _submit(backend: str, project: str) -> mlflow.projects.SubmittedRun:
    return mlflow.projects.run(
        project, parameters={}, backend=backend, env_manager="local", experiment_id="0", synchronous=False
    )


def _sample(helpers: list[int], done: threading.Event) -> None:
    """The memory of all descendants that are not the jobs themselves, four times a second."""
    while not done.wait(0.25):
        helpers.append(sum(pss(pid) for pid in _descendants() if _name(pid) not in _JOBS))


def _name(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/comm").read_bytes().strip()
    except OSError:
        return b""


def _descendants() -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(entry.name))
    found, parents = [], [os.getpid()]
    while parents:
        below = children.pop(parents.pop(), [])
        found += below
        parents += below
    return found


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
