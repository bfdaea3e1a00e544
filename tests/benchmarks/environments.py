"""P14 and P15: an environment that is there, and one that has to be built, of uv's packages and of conda's."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import platform
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from mlflow_azure_backend.environment.resolving import resolve
from mlflow_azure_backend.environment.spec import EnvironmentSpec, read_environment
from mlflow_azure_backend.environment.store import ensure_prefix
from tests.benchmarks.bench import Bench
from tests.benchmarks.local_runs import worker
from tests.benchmarks.measure import FEW, MANY, Cost, Goal, Result, by_turns, seconds, timed
from tests.conda_channel import build_conda_forge, serve

_MLPROJECT = "name: locked\npython_env: python_env.yaml\nentry_points:\n  main:\n    command: python -S -c pass\n"
_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
_EXACTLY = platform.python_version()
_PACKAGES = ("pandas", "requests", "rich")
_CONDA_MLPROJECT = _MLPROJECT.replace("python_env: python_env.yaml", "conda_env: conda.yaml")
_CONDA = f"""channels: [conda-forge]
dependencies: [python={_PYTHON}, numpy, pyyaml, setuptools, pip, pip: [{", ".join(_PACKAGES)}]]
"""
_BARE = """
import asyncio, os, subprocess, sys
import rattler, uv
lock, prefix, wheels = sys.argv[1:]
environment = rattler.LockFile.from_path(lock).default_environment()
records = environment.conda_repodata_records_for_platform(environment.platforms()[0])
client = rattler.Client.from_config(rattler.Config.load_from_default_locations("rattler"))
asyncio.run(rattler.install(records, prefix, client=client, show_progress=False))
sync = [uv.find_uv_bin(), "pip", "install", "--quiet", "--no-deps", "--offline", "--python", prefix + "/bin/python"]
subprocess.run([*sync, "-r", wheels], check=True)
os._exit(0)  # as ours does: rattler's threads may bring down an interpreter that ends
"""
"""A bare installation of a lock by the same two libraries: nothing is compared, nothing is kept from being half done."""

_BUILD = """
import pickle, sys
from pathlib import Path
from mlflow_azure_backend.environment.store import ensure_prefix
ensure_prefix(pickle.loads(Path(sys.argv[1]).read_bytes()), cache=Path(sys.argv[2]))
"""
_RESOLVE = """
import pickle, sys
from pathlib import Path
from mlflow_azure_backend.environment.resolving import resolve
resolve(pickle.loads(Path(sys.argv[1]).read_bytes()), cache=Path(sys.argv[2]))
"""


def _peaks(bench: Bench, script: str, value: object) -> list[float]:
    """The peaks of one of our steps, given a value and a cache that is empty each time."""
    pickled = bench.folder / "value.pickle"
    pickled.write_bytes(pickle.dumps(value))
    folders = [bench.folder / f"peak {number}" for number in range(FEW)]
    found = [bench.peak([sys.executable, "-c", script, str(pickled), str(folder)]) for folder in folders]
    for folder in folders:
        shutil.rmtree(folder)
    return found


def _peaks_of_runs(bench: Bench, project: Path, ours: list[str], peer: list[str]) -> list[float]:
    """The same runs as whole commands, in the environments that are there."""
    store = bench.store("peaks")
    run = ["mlflow", "run", str(project)]
    return [
        bench.peak([*run, "--backend", "azureml", *ours], MLFLOW_TRACKING_URI=store)
        / bench.peak([*run, *peer], MLFLOW_TRACKING_URI=store)
        for _ in range(FEW)
    ]


def warm(bench: Bench) -> Iterator[Result]:
    """P14: what a run in an environment of its own costs more, when that has been built."""
    declared = f"python: '{_PYTHON}'\ndependencies: [six]\n"
    project = bench.project("locked", _MLPROJECT, {"python_env.yaml": declared})
    with worker(bench, project, bench.store("locked")) as costs:
        ((wall, cpu),) = by_turns(costs("azureml", "uv"), costs("azureml", "local"), pairs=MANY)
    local = ["--backend", "azureml", "--env-manager", "local"]
    memory = _peaks_of_runs(bench, project, ["--env-manager", "uv"], local)
    what, peer = "a run in its own environment, built before", "the same run with `env_manager=local`"
    yield Result("P14", what, peer, Goal(1.1), wall, cpu, memory=memory)


def cold(bench: Bench) -> Iterator[Result]:
    """P15: building an environment from its lock, the packages in uv's cache on both sides."""
    declared = f"python: '{_PYTHON}'\ndependencies: [{', '.join(_PACKAGES)}]\n"
    folder = bench.project("built", _MLPROJECT, {"python_env.yaml": declared})
    wanted = read_environment("python_env", folder / "python_env.yaml", folder=folder, env_manager="uv", current=False)
    cache, peer = bench.folder / "environments", bench.folder / "peer"
    lock = resolve(wanted, cache=cache)
    requirements = bench.folder / "requirements.txt"
    requirements.write_text("".join(f"{line}\n" for line in lock.sources.lines) + lock.text, encoding="utf-8")

    sync = ["uv", "pip", "sync", "--quiet", "--python", str(peer / "bin/python"), str(requirements)]

    def ours() -> None:
        shutil.rmtree(cache / "environments", ignore_errors=True)
        ensure_prefix(lock, cache=cache)

    def empty() -> None:
        shutil.rmtree(peer, ignore_errors=True)
        bench.run(["uv", "venv", "--quiet", "--no-project", "--python", os.path.realpath(sys.executable), str(peer)])

    def bare() -> None:
        empty()
        bench.run(sync, None, **lock.sources.variables)

    def peak_of_bare() -> float:
        empty()
        return bench.peak(sync, **lock.sources.variables)

    ((wall, cpu),) = by_turns(timed(ours), timed(bare), pairs=MANY)
    memory = [mine / peak_of_bare() for mine in _peaks(bench, _BUILD, lock)]
    what = f"building an environment of {len(lock.packages)} packages from its lock"
    yield Result("P15", what, "`uv venv` and `uv pip sync`", Goal(1.15), wall, cpu, memory=memory)


def warm_peers(bench: Bench) -> Iterator[Result]:
    """P14 beside MLflow's own managers: the same run in the environments that both built before."""
    declared = f"python: '{_EXACTLY}'\ndependencies: [six]\n"
    project = bench.project("locked", _MLPROJECT, {"python_env.yaml": declared})
    with worker(bench, project, bench.store("locked")) as costs:
        for manager in _managers():
            ((wall, cpu),) = by_turns(costs("azureml", manager), costs("local", manager))
            what, options = f"a run with `env_manager={manager}`, built before", ["--env-manager", manager]
            memory = _peaks_of_runs(bench, project, options, options)
            yield Result(f"P14 {manager}", what, "MLflow's own manager", Goal(1.0), wall, cpu, _as_with_p2, memory)


def cold_peers(bench: Bench) -> Iterator[Result]:
    """P15 beside MLflow's own managers: a whole first run, resolved and built by both, packages in uv's and pip's caches."""
    declared = f"python: '{_EXACTLY}'\ndependencies: [{', '.join(_PACKAGES)}]\n"
    project = str(bench.project("built", _MLPROJECT, {"python_env.yaml": declared}))
    store, fresh = bench.store("first"), bench.folder / "fresh"
    variables = {
        "MLFLOW_TRACKING_URI": store,
        "MLFLOW_AZURE_CACHE": str(fresh / "ours"),
        "MLFLOW_ENV_ROOT": str(fresh / "theirs"),
    }

    def run(*options: str) -> Cost:
        shutil.rmtree(fresh, ignore_errors=True)
        return bench.cost(["mlflow", "run", project, *options], None, **variables)

    for manager in _managers():
        ours, theirs = ("--backend", "azureml", "--env-manager", manager), ("--env-manager", manager)
        ((wall, cpu),) = by_turns(partial(run, *ours), partial(run, *theirs), pairs=FEW)
        what = f"a first `mlflow run --env-manager {manager}`: resolved, built, run"
        yield Result(f"P15 {manager}", what, "MLflow's own manager", Goal(1.0), wall, cpu)


def _managers() -> tuple[str, ...]:
    """MLflow's own; its virtualenv takes Pythons from pyenv, and installs the newest patch of a minor version."""
    return ("uv", "virtualenv") if shutil.which("pyenv") else ("uv",)


def _as_with_p2() -> str:
    return "This is P2 again, in an environment of the project's own: MLflow stores neither log, snapshot nor lock."


@contextlib.contextmanager
def _conda_forge(bench: Bench) -> Iterator[Mapping[str, str]]:
    """conda-forge on loopback for us and for peers, with caches of the benchmark's own."""
    home = bench.folder / "rattler"
    home.mkdir(exist_ok=True)
    channels = bench.folder / "channels"
    if not channels.exists():
        build_conda_forge(channels / "conda-forge")
    variables = {"RATTLER_HOME": str(home), "RATTLER_CACHE_DIR": str(bench.folder / "rattler-cache")}
    before = {name: os.environ.get(name) for name in variables}
    with contextlib.contextmanager(serve)(channels) as server:
        (home / "config.toml").write_text(server.configuration(), encoding="utf-8")
        os.environ.update(variables)
        bench.environment.update(variables)
        try:
            yield variables
        finally:
            for name, value in before.items():
                del bench.environment[name]
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


def _conda_project(bench: Bench) -> tuple[Path, EnvironmentSpec]:
    folder = bench.project("conda", _CONDA_MLPROJECT, {"conda.yaml": _CONDA})
    path = folder / "conda.yaml"
    return folder, read_environment("conda_env", path, folder=folder, env_manager=None, current=False)


def warm_conda(bench: Bench) -> Iterator[Result]:
    """P14 for conda: what a run in a conda environment costs more, when that has been built."""
    with _conda_forge(bench):
        project, _ = _conda_project(bench)
        with worker(bench, project, bench.store("conda")) as costs:
            ((wall, cpu),) = by_turns(costs("azureml", "conda"), costs("azureml", "local"))
            if shutil.which("conda"):
                ((peers_wall, peers_cpu),) = by_turns(costs("azureml", "conda"), costs("local", "conda"))
                what = "a run with `env_manager=conda`, built before"
                yield Result("P14 conda", what, "MLflow's own manager", Goal(1.0), peers_wall, peers_cpu, _as_with_p2)
        memory = _peaks_of_runs(bench, project, [], ["--backend", "azureml", "--env-manager", "local"])
    what, peer = "a run in its conda environment, built before", "the same run with `env_manager=local`"
    yield Result("P14b", what, peer, Goal(1.1), wall, cpu, memory=memory)


def cold_conda(bench: Bench) -> Iterator[Result]:
    """P15 for conda: building from the lock, packages in the caches on both sides; and making a lock."""
    cache, peer, locks = bench.folder / "conda-environments", bench.folder / "conda-peer", bench.folder / "conda-locks"
    file, wheels = bench.folder / "conda-lock.yml", bench.folder / "wheels.txt"
    with _conda_forge(bench):
        _, wanted = _conda_project(bench)
        lock = resolve(wanted, cache=cache)
        file.write_text(lock.text, encoding="utf-8")
        pip = [one for one in lock.packages if one.manager == "pip"]
        pinned = (f"{one.name}=={one.version} --hash={one.hashes[0]}" for one in pip)
        wheels.write_text("".join(f"{line}\n" for line in (*lock.sources.lines, *pinned)), encoding="utf-8")

        install = [sys.executable, "-c", _BARE, str(file), str(peer), str(wheels)]

        def ours() -> None:
            shutil.rmtree(cache / "environments", ignore_errors=True)
            ensure_prefix(lock, cache=cache)

        def bare() -> None:
            shutil.rmtree(peer, ignore_errors=True)
            bench.run(install, None, **lock.sources.variables)

        def peak_of_bare() -> float:
            shutil.rmtree(peer)
            return bench.peak(install, **lock.sources.variables)

        ((wall, cpu),) = by_turns(timed(ours), timed(bare), pairs=MANY)
        why = _of_comparing(peer, bare)
        what = f"building a conda environment of {len(lock.packages)} packages from its lock"
        against = "rattler's `install` and `uv pip install`, nothing compared"
        memory = [mine / peak_of_bare() for mine in _peaks(bench, _BUILD, lock)]
        yield Result("P15b", what, against, Goal(1.15), wall, cpu, partial(str, why), memory)

        def anew() -> None:
            shutil.rmtree(locks, ignore_errors=True)
            resolve(wanted, cache=locks)

        seconds = [timed(anew)().cpu for _ in range(5)][1:]
        memory = _peaks(bench, _RESOLVE, wanted)
        yield Result("P15c", "CPU time of a new conda lock", "", Goal(4, "s"), seconds, memory=memory)
        hits = [timed(lambda: resolve(wanted, cache=locks))().cpu for _ in range(9)]
        yield Result("P14c", "CPU time of a conda lock that is kept", "", Goal(0.15, "s"), hits)


def _of_comparing(prefix: Path, bare: Callable[[], None]) -> str:
    def compare() -> None:
        for file in prefix.rglob("*"):
            if file.is_file() and not file.is_symlink():
                hashlib.sha256(file.read_bytes()).digest()

    bare()
    share = seconds(compare) / seconds(bare)
    return f"Reading and hashing what was installed, as ours does to find a flipped byte, takes {share:.2f} of the peer's time."


def _both(*cases: Callable[[Bench], Iterator[Result]]) -> Callable[[Bench], Iterator[Result]]:
    def case(bench: Bench) -> Iterator[Result]:
        for each in cases:
            yield from each(bench)

    return case


CASES = {"P14": _both(warm, warm_peers, warm_conda), "P15": _both(cold, cold_peers, cold_conda)}
