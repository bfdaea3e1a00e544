"""P26: runs in an emulated workspace that answers each request 20 ms late, beside azureml-mlflow; and what our doors cost."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from mlflow_azure_backend.emulator import EmulatorServer
from tests.benchmarks.artifacts import LATENCY, client_of, peer_of
from tests.benchmarks.bench import Bench
from tests.benchmarks.measure import FEW, PAIRS, Goal, Result, by_turns

_METRICS: Final = "1000"
_LOAD: Final = """
import mlflow, sys, time
for name in [one for one in sys.modules if one.startswith("mlflow_azure_backend")]:
    del sys.modules[name]
started = time.perf_counter()
import mlflow_azure_backend.stores, mlflow_azure_backend.artifacts
print(1000 * (time.perf_counter() - started))
"""
_FIRST: Final = """
import mlflow, time
from mlflow import MlflowClient
def ask():
    started = time.perf_counter()
    MlflowClient().search_experiments(max_results=1)
    return time.perf_counter() - started
first = ask()
print(first - ask())
"""


def tracking(bench: Bench) -> Iterator[Result]:
    """Import, first call, and metrics one by one."""
    with EmulatorServer(outside=False) as emulator:
        inherited = {name: value for name, value in bench.environment.items() if name != "PYTHONPATH"}
        environment = emulator.environment(inherited)

        def quantities(program: str) -> list[float]:
            argv = [sys.executable, "-W", "ignore", "-c", program]
            runs = (subprocess.check_output(argv, env=environment, text=True) for _ in range(PAIRS + 1))
            return [float(told) for told in runs][1:]

        yield Result("P26 import", "importing our doors when MLflow is imported", "", Goal(30, "ms"), quantities(_LOAD))
        yield Result("P26 first", "a process's first call over its second", "", Goal(0.5, "s"), quantities(_FIRST))
        with (
            client_of(bench, emulator, peer_of(bench)) as peer,
            client_of(bench, emulator, Path(sys.executable)) as ours,
        ):
            emulator.fault("latency", seconds=LATENCY, times=None)
            ((wall, cpu),) = by_turns(
                lambda: ours("metrics", _METRICS)[1], lambda: peer("metrics", _METRICS)[1], pairs=FEW
            )
            yield Result("P26", "log 1,000 metrics, 20 ms latency", "azureml-mlflow", Goal(1), wall, cpu)


CASES = {"P26": tracking}
