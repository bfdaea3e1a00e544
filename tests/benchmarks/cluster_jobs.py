"""P9 and P17: a project on its way into an emulated workspace that answers late, beside azure-ai-ml."""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from mlflow_azure_backend.emulator import EmulatorServer
from tests.benchmarks.bench import Bench
from tests.benchmarks.measure import FEW, PAIRS, Cost, Goal, Result, by_turns

_CLIENT: Final = Path(__file__).with_name("job_client.py")
_MLPROJECT: Final = '{"name": "bench", "entry_points": {"main": {"command": "true"}}}'


def upload(bench: Bench) -> Iterator[Result]:
    """1,000 files of 20 MB together that the workspace has never seen, at each submission."""
    yield from _submissions(bench, "P9", 1000, 20_000_000, 0.02, Goal(0.2), FEW)


def submission(bench: Bench) -> Iterator[Result]:
    """200 files, changed each time, with 50 ms for each call."""
    yield from _submissions(bench, "P17", 200, 400_000, 0.05, Goal(0.5), PAIRS)


def _submissions(
    bench: Bench, identity: str, files: int, size: int, latency: float, goal: Goal, pairs: int
) -> Iterator[Result]:
    chance = random.Random(identity)

    def changed() -> Path:
        folder = bench.folder / f"{identity}-{chance.random()}"
        for number in range(files):
            place = folder / f"{number % 20:02}" / f"{number:04}.bin"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(chance.randbytes(size // files))
        (folder / "MLproject").write_text(_MLPROJECT)
        return folder

    with (
        EmulatorServer(outside=False) as emulator,
        _client(bench, emulator, "ours") as ours,
        _client(bench, emulator, "theirs") as theirs,
    ):
        emulator.fault("latency", seconds=latency, times=None)
        ((wall, cpu),) = by_turns(lambda: ours(changed()), lambda: theirs(changed()), pairs=pairs)
    what = f"submit {files:,} files, {size // 1_000:,} KB, that are new, {latency * 1000:.0f} ms latency"
    yield Result(identity, what, "azure-ai-ml", goal, wall, cpu)


@contextlib.contextmanager
def _client(bench: Bench, emulator: EmulatorServer, whose: str) -> Iterator[Callable[[Path], Cost]]:
    """A process with ``job_client.py``; what it imports and its sign-in are done before the first submission counts."""
    with (
        (bench.folder / f"{whose}.err").open("w") as errors,
        subprocess.Popen(
            [sys.executable, "-W", "ignore", _CLIENT, whose, emulator.config_file],
            env=emulator.environment(bench.environment),
            cwd=bench.folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        requests, answers = process.stdin, process.stdout

        def submit(folder: Path) -> Cost:
            requests.write(json.dumps(str(folder)) + "\n")
            requests.flush()
            return Cost(*json.loads(answers.readline()))

        yield submit
        requests.close()


CASES = {"P9": upload, "P17": submission}
