"""P14 and P15: a Python environment that is there, and one that has to be built."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator

from mlflow_azure_backend.environment.resolving import resolve
from mlflow_azure_backend.environment.spec import read_environment
from mlflow_azure_backend.environment.store import ensure_prefix
from tests.benchmarks.bench import Bench
from tests.benchmarks.local_runs import worker
from tests.benchmarks.measure import Goal, Result, by_turns, timed

_MLPROJECT = "name: locked\npython_env: python_env.yaml\nentry_points:\n  main:\n    command: python -S -c pass\n"
_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
_PACKAGES = ("pandas", "requests", "rich")


def warm(bench: Bench) -> Iterator[Result]:
    """P14: what a run in an environment of its own costs more, when that has been built."""
    declared = f"python: '{_PYTHON}'\ndependencies: [six]\n"
    project = bench.project("locked", _MLPROJECT, {"python_env.yaml": declared})
    with worker(bench, project, bench.store("locked")) as costs:
        ((wall, cpu),) = by_turns(costs("azureml", "uv"), costs("azureml", "local"))
    yield Result(
        "P14",
        "a run in its own environment, built before",
        "the same run with `env_manager=local`",
        Goal(1.1),
        wall,
        cpu,
    )


def cold(bench: Bench) -> Iterator[Result]:
    """P15: building an environment from its lock, the packages in uv's cache on both sides."""
    declared = f"python: '{_PYTHON}'\ndependencies: [{', '.join(_PACKAGES)}]\n"
    folder = bench.project("built", _MLPROJECT, {"python_env.yaml": declared})
    wanted = read_environment("python_env", folder / "python_env.yaml", folder=folder, env_manager="uv", current=False)
    cache, peer = bench.folder / "environments", bench.folder / "peer"
    lock = resolve(wanted, cache=cache)
    requirements = bench.folder / "requirements.txt"
    requirements.write_text("".join(f"{line}\n" for line in lock.sources.lines) + lock.text, encoding="utf-8")

    def ours() -> None:
        shutil.rmtree(cache / "environments", ignore_errors=True)
        ensure_prefix(lock, cache=cache)

    def bare() -> None:
        shutil.rmtree(peer, ignore_errors=True)
        bench.run(["uv", "venv", "--quiet", "--no-project", "--python", os.path.realpath(sys.executable), str(peer)])
        sync = ["uv", "pip", "sync", "--quiet", "--python", str(peer / "bin/python"), str(requirements)]
        bench.run(sync, None, **lock.sources.variables)

    ((wall, cpu),) = by_turns(timed(ours), timed(bare))
    what = f"building an environment of {len(lock.packages)} packages from its lock"
    yield Result("P15", what, "`uv venv` and `uv pip sync`", Goal(1.15), wall, cpu)


CASES = {"P14": warm, "P15": cold}
