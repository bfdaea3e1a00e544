"""Artifacts in an emulated workspace that answers each request 20 ms late, beside azureml-mlflow."""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from uv import find_uv_bin

from mlflow_azure_backend.emulator import EmulatorServer
from tests.benchmarks.bench import Bench
from tests.benchmarks.measure import FEW, PAIRS, Cost, Goal, Result, by_turns

_CLIENT: Final = Path(__file__).with_name("workspace_client.py")
LATENCY: Final = 0.02
_FILES: Final = 200
_BIG: Final = 500_000_000

Ask = Callable[[str, str], tuple[str, Cost]]


def artifacts(bench: Bench) -> Iterator[Result]:
    """A model folder of 200 files and one file of 500 MB, up and down."""
    folder, big = bench.folder / "model of 200 files", bench.folder / "big.bin"
    folder.mkdir()
    chance = random.Random(0)
    for number in range(_FILES):
        (folder / f"part{number:03}.bin").write_bytes(chance.randbytes(chance.randint(1_000, 50_000)))
    with big.open("wb") as stream:
        for _ in range(_BIG // 1_000_000):
            stream.write(chance.randbytes(1_000_000))
    with (
        EmulatorServer(outside=False) as emulator,
        client_of(bench, emulator, peer_of(bench)) as peer,
        client_of(bench, emulator, Path(sys.executable)) as ours,
    ):
        emulator.fault("latency", seconds=LATENCY, times=None)
        yield from _there_and_back("P23", "a folder of 200 files", folder, ours, peer, Goal(0.3), PAIRS)
        yield from _there_and_back("P24", "a file of 500 MB", big, ours, peer, Goal(1), FEW)


def _there_and_back(
    identity: str, what: str, path: Path, ours: Ask, peer: Ask, goal: Goal, pairs: int
) -> Iterator[Result]:
    ((wall, cpu),) = by_turns(lambda: ours("up", str(path))[1], lambda: peer("up", str(path))[1], pairs=pairs)
    yield Result(identity, f"log {what}, 20 ms latency", "azureml-mlflow", goal, wall, cpu)
    run, _ = ours("up", str(path))
    ((wall, cpu),) = by_turns(lambda: ours("down", run)[1], lambda: peer("down", run)[1], pairs=pairs)
    yield Result(f"{identity} down", f"download {what}, 20 ms latency", "azureml-mlflow", goal, wall, cpu)


def peer_of(bench: Bench) -> Path:
    """An interpreter with azureml-mlflow and the MLflow that it pins."""
    folder = bench.folder / "azureml-mlflow"
    subprocess.run([find_uv_bin(), "venv", "--quiet", "--python", sys.executable, folder], check=True)
    python = folder / "bin" / "python"
    subprocess.run([find_uv_bin(), "pip", "install", "--quiet", "--python", python, "azureml-mlflow"], check=True)
    return python


@contextlib.contextmanager
def client_of(bench: Bench, emulator: EmulatorServer, python: Path) -> Iterator[Ask]:
    """A process with ``workspace_client.py`` in the environment of that interpreter."""
    inherited = {name: value for name, value in bench.environment.items() if name != "PYTHONPATH"}
    with (
        (bench.folder / "workspace_client.err").open("w") as errors,
        subprocess.Popen(
            [python, "-W", "ignore", _CLIENT],
            env={**emulator.environment(inherited), "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"},
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

        def ask(action: str, what: str) -> tuple[str, Cost]:
            requests.write(json.dumps([action, what]) + "\n")
            requests.flush()
            run, wall, cpu = json.loads(answers.readline())
            return run, Cost(wall, cpu)

        yield ask
        requests.close()


CASES = {"P23": artifacts}
