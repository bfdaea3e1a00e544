"""Rows 16, 19, 20, 33 to 37 and 39: eight at once, corrupted caches, hostile projects, secrets, planted links."""

from __future__ import annotations

import io
import os
import random
import resource
import stat
import subprocess
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from mlflow_azure_backend.errors import BackendError
from mlflow_azure_backend.planning import Order, Silence, plan_job
from tests.faults.checker import check, check_lines
from tests.faults.packages import project_with_environment
from tests.faults.world import QUICK, WAITING, World
from tests.fuzzing import damaged

CANARY = "canary-7c1f9e"
MLPROJECT = (
    "name: fuzzed\npython_env: python_env.yaml\nentry_points:\n  main:\n    parameters:\n      alpha: {type: float, "
    'default: 0.5}\n      data: path\n    command: "python train.py {alpha} {data}"\n'
)
PYTHON_ENV = (
    "python: '3.11'\nbuild_dependencies: [pip]\ndependencies:\n  - --no-index\n  - alpha==1.0; python_version > '3'\n"
)
CONDA = "name: x\nchannels: [defaults]\ndependencies:\n  - python=3.11\n  - pip:\n    - alpha\n"
CONFIG = "compute: local\ntimeout: 2h\nsnapshot: {exclude: [data/], max_size: 10MB}\nenvironment_variables: {A: b}\n"


def test_one_submission_id_from_eight_processes(world: World) -> None:
    world.write_project(WAITING)
    clients = [world.run("-c", '{"submission_id": "the same"}') for _ in range(8)]
    world.await_child()
    world.open_gate()
    assert [client.wait() for client in clients] == [0] * 8, [client.err for client in clients]
    assert {client.out for client in clients} == {b"ready\ndone\n"}
    check(world, status="FINISHED", says=("finished",))


def test_one_submission_id_whose_first_process_fails(world: World) -> None:
    world.write_project(QUICK)
    config = ("-c", '{"submission_id": "the same"}')
    clients = [world.run(*config, MLFLOW_AZURE_FAULT="launching.before_submit:raise")]
    clients += [world.run(*config) for _ in range(3)]
    codes = [client.wait() for client in clients]
    assert codes[0] in (0, 1)
    assert codes[1:] == [0] * 3, [client.err for client in clients]
    world.await_quiet()
    assert sorted(status for _, status in world.runs())[:1] == ["FINISHED"]
    check(world, runs=len(world.runs()), starts=1)


def test_eight_processes_build_one_environment(world: World) -> None:
    world.write_project(QUICK)
    project_with_environment(world)
    clients = [world.run() for _ in range(8)]
    assert [client.wait() for client in clients] == [0] * 8, [client.err for client in clients]
    assert sum("✓ install" in client.err for client in clients) == 1
    assert len([path for path in (world.cache / "environments").iterdir() if path.is_dir()]) == 1
    assert {client.out for client in clients} == {b"one\ntwo\r\x00\xff three"}
    check(world, runs=8, status="FINISHED", says=("finished",), logs_apart=True)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes() or b"\0")
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def become_folder(path: Path) -> None:
    path.unlink()
    path.mkdir(mode=0o700)


@pytest.mark.parametrize("damage", [flip, cut, become_folder])
def test_a_cache_that_was_damaged(world: World, damage: Callable[[Path], None]) -> None:
    world.write_project(QUICK)
    project_with_environment(world)
    assert world.run().wait() == 0
    kept = [path for path in world.cache.rglob("*") if path.is_file() and not path.is_symlink()]
    kept = [path for path in kept if "environments" not in path.parts or path.name.startswith(".mlflow")]
    kept = [path for path in kept if path.suffix != ".lock" and path.parent.name != "locks"]
    assert kept
    for path in kept:
        damage(path)
        client = world.run()
        assert client.wait() == 0, (path, client.err)
    check(world, runs=1 + len(kept), status="FINISHED", says=("finished",), logs_apart=True)


@pytest.mark.parametrize("where", ["home", "cache"])
def test_a_folder_where_a_file_of_ours_belongs(world: World, where: str) -> None:
    """It is replaced by the next who writes, or one line names it; every command goes on answering."""
    world.write_project(QUICK)
    project_with_environment(world)
    config = ("-c", '{"submission_id": "the same"}')
    assert world.run(*config).wait() == 0
    ((run_id, _),) = world.runs()
    root: Path = getattr(world, where)
    kept = [path for path in sorted(root.rglob("*")) if path.is_file() and not path.is_symlink()]
    for path in (path for path in kept if "environments" not in path.parts or path.name.startswith(".mlflow")):
        content, mode = path.read_bytes(), path.stat().st_mode
        become_folder(path)
        commands = [("list",), ("status", run_id), ("logs", run_id), ("sync",), ("run", str(world.project), *config)]
        for command in commands:
            client = world.start("mlflow-azure", *command)
            assert client.wait() in (0, 1), (path, command)
            assert "Traceback" not in client.err, (path, command)
            assert "mistake of mlflow-azure" not in client.err, (path, command, client.err)
            assert client._code == 0 or str(path) in client.err, (path, command, client.err)
        if path.is_dir():
            path.rmdir()
            path.write_bytes(content)
            path.chmod(mode)


@pytest.mark.parametrize(
    "name", ["../outside", "/tmp/absolute-by-a-zip", "a/../../outside", "C:\\outside", "link", "fifo"]
)
def test_a_hostile_zip(world: World, name: str) -> None:
    archive = world.folder / "p.zip"
    with zipfile.ZipFile(archive, "w") as writer:
        writer.writestr("MLproject", "entry_points: {main: {command: 'true'}}")
        entry = zipfile.ZipInfo(name)
        kind = {"link": stat.S_IFLNK, "fifo": stat.S_IFIFO}.get(name, stat.S_IFREG)
        entry.external_attr = (kind | 0o644) << 16
        writer.writestr(entry, "/etc/passwd")
    client = world.run(project=str(archive))
    code = client.wait()
    assert not (world.folder / "outside").exists()
    assert not Path("/tmp/absolute-by-a-zip").exists()
    assert not list(world.home.rglob("outside"))
    if name.startswith("C:") and code == 0:  # an odd name here, nothing more
        return
    assert code == 1, client.err
    check(world, runs=0, says=(archive.name,))


def test_a_zip_bomb(world: World) -> None:
    archive = world.folder / "p.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as writer:
        writer.writestr("MLproject", "entry_points: {main: {command: 'true'}}")
        with writer.open("zeros", "w", force_zip64=True) as stream:
            for _ in range(1100):
                stream.write(bytes(1 << 20))
    client = world.run(project=str(archive))
    assert client.wait() == 1
    check(world, runs=0, says=(archive.name,))


def links_out(folder: Path) -> str:
    (folder / "link").symlink_to("/etc/passwd")
    return "link"


def link_loop(folder: Path) -> str:
    (folder / "loop").symlink_to("loop")
    return "loop"


def folder_loop(folder: Path) -> str:
    (folder / "again").symlink_to(".")
    return "again"


def fifo(folder: Path) -> str:
    os.mkfifo(folder / "pipe")
    return "pipe"


def odd_name(folder: Path) -> str:
    (folder / "a\nb\x1b[31m'\"$(id)").write_text("x")
    return ""


def bytes_name(folder: Path) -> str:
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff\xfe")).write_text("x")
    return ""


def long_path(folder: Path) -> str:
    deep = folder / "/".join(["d" * 200] * 5)
    deep.mkdir(parents=True)
    (deep / ("f" * 250)).write_text("x")
    return ""


@pytest.mark.parametrize("plant", [links_out, link_loop, folder_loop, fifo, odd_name, bytes_name, long_path])
def test_odd_things_in_a_project(world: World, plant: Callable[[Path], str]) -> None:
    world.write_project(QUICK)
    named = plant(world.project)
    client = world.run()
    code = client.wait(30)
    assert code in (0, 1), client.err
    check(
        world,
        runs=1 - code,
        status="FINISHED" if code == 0 else None,
        says=(named,) if named and code else ("finished",) if code == 0 else (),
        recorded=code == 0,
    )
    if named:
        assert named in client.err, "what is left out or refused is named"
    stored = [path.read_bytes() for path in world.store.rglob("*") if path.is_file()]
    assert not [content for content in stored if b"root:x:0:0" in content]


def test_no_canary_leaks(world: World) -> None:
    world.canaries = [CANARY]
    world.write_project(
        QUICK,
        files={
            ".env": f"TOKEN={CANARY}\n",
            "MLproject": "entry_points: {main: {parameters: {p: {type: string, default: x}}, command: 'python -I -S child.py'}}\n",
        },
    )
    git = ["git", "-C", str(world.project), "-c", "user.name=x", "-c", "user.email=x@x"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "remote", "add", "origin", f"https://user:{CANARY}@127.0.0.1/r.git?sig={CANARY}"], check=True)
    subprocess.run([*git, "add", "MLproject", "child.py"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "x"], check=True)
    client = world.run(
        *("-c", '{"secrets": {"TOKEN": "env:A_SECRET"}, "environment_variables": {"PLAIN": "1"}}'),
        A_SECRET=CANARY,
        UNRELATED_SECRET=CANARY,
    )
    assert client.wait() == 0, client.err
    config = world.project / ".git" / "config"
    assert CANARY in config.read_text()
    check(world, status="FINISHED", says=("finished",))


@pytest.mark.parametrize("where", ["home", "home/runs", "home/ids", "home/active", "cache/environments", "cache/locks"])
@pytest.mark.parametrize("trap", ["link", "foreign"])
def test_a_place_that_somebody_else_prepared(world: World, where: str, trap: str) -> None:
    world.write_project(QUICK)
    project_with_environment(world)
    place, elsewhere = world.folder / where, world.folder / "elsewhere"
    place.parent.mkdir(mode=0o700, exist_ok=True)
    elsewhere.mkdir()
    if trap == "link":
        place.symlink_to(elsewhere)
    else:
        place.mkdir(mode=0o777)
        os.chown(place, 4321, 4321)
    client = world.run()
    assert client.wait() == 1, client.err
    assert sorted(elsewhere.iterdir()) == []
    assert world.runs() == []
    assert world.starts() == 0
    check_lines(world, (str(place),))


@pytest.mark.parametrize("part", range(10))
def test_fuzzed_files(tmp_path: Path, part: int) -> None:
    """1,000 of 10,000 mutations of an MLproject, its environment files and a configuration: never another error."""
    dice = random.Random(part)
    (tmp_path / "train.py").write_text("")
    (tmp_path / "data").write_text("")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(1000):
        texts = {
            "MLproject": MLPROJECT,
            "python_env.yaml": PYTHON_ENV,
            "conda.yaml": CONDA,
            "mlflow-azure.yaml": CONFIG,
        }
        victim = dice.choice(sorted(texts))
        if victim == "conda.yaml":
            texts["MLproject"] = MLPROJECT.replace("python_env: python_env.yaml", "conda_env: conda.yaml")
        for name, text in texts.items():
            (tmp_path / name).write_bytes(damaged(text, dice) if name == victim else text.encode())
        order = Order(str(tmp_path), "main", None, {"data": "data"}, {"environment": "current"}, tmp_path)
        begun = time.process_time()
        try:
            plan_job(order, "fuzz", tmp_path / "checkout", {"MLFLOW_AZURE_CACHE": str(tmp_path / "cache")}, Silence())
        except BackendError as error:
            assert "\n" not in str(error)
        assert time.process_time() - begun < 1.0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024


def test_yaml_bomb(world: World) -> None:
    bomb = io.StringIO()
    bomb.write("a0: &a0 [x, x, x, x, x, x, x, x, x]\n")
    for level in range(1, 12):
        bomb.write(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n")
    world.write_project(QUICK, mlproject=bomb.getvalue())
    begun = time.monotonic()
    assert world.run().wait() == 1
    assert time.monotonic() - begun < 2
    check(world, runs=0, says=("MLproject",))
