"""Environments that jobs install at their start: once on a node, kept for other nodes, never half."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import venv
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pip
import pytest

from mlflow_azure_backend.environment.conda.channels import rattler_config
from mlflow_azure_backend.environment.lock import EnvironmentLock
from mlflow_azure_backend.environment.resolving import resolve
from mlflow_azure_backend.runtime import keeping
from mlflow_azure_backend.runtime.order import JobOrder
from mlflow_azure_backend.workspace.travelling import RUNTIME_FILE, lock_files, locked_environment
from tests.conda_channel import Channel
from tests.environment.conftest import Index, MakeWheel, ReadProject
from tests.runtime.conftest import Done, Node

SAY = "gamma-say && python -c 'import sys; print(sys.prefix)'"


@pytest.fixture
def lock(make_wheel: MakeWheel, read: ReadProject, cache: Path) -> EnvironmentLock:
    """An environment of one wheel, which the project brings along."""
    make_wheel("gamma", "1.0")
    return resolve(read("gamma"), cache=cache)


@pytest.fixture
def node(node: Node, lock: EnvironmentLock, folder: Path, tmp_path: Path) -> Node:
    """One whose job brings the lock and the wheel."""
    wheels = {f"wheels/{path.name}": path.read_bytes() for path in (folder / "wheels").iterdir()}
    node.lay({**lock_files(lock, folder, None), **wheels})
    node.variables["AZURE_ML_OUTPUT_kept"] = str(tmp_path / "kept")
    return node


@pytest.fixture
def order(lock: EnvironmentLock) -> JobOrder:
    return JobOrder(locked_environment(lock, kept_in="kept"))


@pytest.fixture
def bare_image(tmp_path: Path) -> Path:
    """The folder of a ``python3`` that has pip and nothing else."""
    venv.create(tmp_path / "image", with_pip=False)
    (there,) = (tmp_path / "image/lib").glob("python3*/site-packages")
    for part in Path(pip.__file__).parent.parent.glob("pip*"):
        (there / part.name).symlink_to(part)
    return tmp_path / "image/bin"


def forget(node: Node) -> None:
    """As on another node."""
    shutil.rmtree(node.variables["MLFLOW_AZURE_CACHE"])


def archive_of(node: Node) -> Path:
    (found,) = Path(node.variables["AZURE_ML_OUTPUT_kept"]).glob("*.tar.gz")
    return found


def source_of(done: Done) -> str:
    """What our line says of where the environment came from."""
    said = [line for line in done.out.splitlines() if line.startswith("mlflow-azure: environment ")]
    assert len(said) == 1, done
    return " ".join(said[0].split()[3:]).partition(" in ")[0]


def test_it_is_installed_once_found_on_the_node_and_unpacked_on_others(node: Node, order: JobOrder) -> None:
    first = node.run(SAY, order)
    prefix = f"{node.variables['MLFLOW_AZURE_CACHE']}/environments/"
    assert (first.code, first.err) == (0, "")
    assert source_of(first) == "installed"
    assert first.out.splitlines()[1:3] == ["gamma 1.0", first.out.splitlines()[2]]
    assert first.out.splitlines()[2].startswith(prefix)
    told = node.report()
    assert (told.environment, told.python) == ("installed", ".".join(map(str, sys.version_info[:3])))
    assert told.kept is not None
    assert told.kept.startswith("kept in ")
    assert source_of(node.run(SAY, order)) == "was on the node"
    forget(node)
    (node.working / ".mlflow-azure/requirements.txt").unlink()
    third = node.run(SAY, order)
    assert source_of(third) == "unpacked from the workspace"
    assert third.out.splitlines()[1:] == first.out.splitlines()[1:]
    assert node.report().environment == "kept"


def test_the_ranks_of_a_node_install_it_once(node: Node, order: JobOrder) -> None:
    started = [node.start(SAY, order, RANK=str(rank), NODE_RANK="0") for rank in range(3)]
    done = [
        Done(process.returncode, out.decode(), err.decode())
        for process in started
        for out, err in [process.communicate(timeout=200)]
    ]
    assert [one.code for one in done] == [0, 0, 0], done
    assert sorted(map(source_of, done)) == ["installed", "was on the node", "was on the node"]
    kept = [str(told.kept) for told in map(node.report, range(3)) if told.environment == "installed"]
    assert kept[0].startswith("kept in "), kept
    assert [path.name for path in Path(node.variables["AZURE_ML_OUTPUT_kept"]).glob("*.json")] == ["complete.json"]


def test_only_the_first_node_keeps_it(node: Node, order: JobOrder) -> None:
    done = node.run("true", order, RANK="1", NODE_RANK="1")
    assert source_of(done) == "installed"
    assert not Path(node.variables["AZURE_ML_OUTPUT_kept"]).exists()


def test_one_killed_in_the_middle_of_the_installation_is_made_anew(
    node: Node,
    order: JobOrder,
    index: Index,
    folder: Path,
) -> None:
    """The index is named by the job's variables, and is slow."""
    index.add(folder / "wheels/gamma-1.0-py3-none-any.whl")
    (node.working / ".mlflow-azure/indexes.txt").unlink()
    index.answer.clear()
    process = node.start(SAY, order, UV_DEFAULT_INDEX=index.private_url)
    assert index.asked.wait(100)
    process.kill()
    process.communicate(timeout=100)
    index.answer.set()
    done = node.run(SAY, order, UV_DEFAULT_INDEX=index.private_url)
    assert (done.code, done.err, source_of(done)) == (0, "", "installed")
    said = [done.out, (node.working / "logs/mlflow-azure/rank-0.json").read_text()]
    assert index.password not in "".join(said)


def test_one_that_is_ended_while_it_installs_leaves_nothing(
    node: Node,
    order: JobOrder,
    index: Index,
    folder: Path,
) -> None:
    index.add(folder / "wheels/gamma-1.0-py3-none-any.whl")
    (node.working / ".mlflow-azure/indexes.txt").unlink()
    index.answer.clear()
    process = node.start(SAY, order, UV_DEFAULT_INDEX=index.private_url)
    assert index.asked.wait(100)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=100)
    assert process.returncode == 143
    told = node.report()
    assert (told.stopped_by, told.exit_code, told.environment) == (signal.SIGTERM, 143, None)
    assert told.problem == "ended before the command ran"


def test_one_killed_while_it_packs_keeps_nothing_that_is_half(node: Node, order: JobOrder) -> None:
    kept = Path(node.variables["AZURE_ML_OUTPUT_kept"])
    process = node.start("mkfifo wait; read line < wait", order)
    try:
        while not list(kept.glob("*.tar.gz")):
            assert process.poll() is None
    finally:
        for pid in children_of(process.pid):
            os.kill(pid, signal.SIGKILL)
        process.kill()
        process.communicate(timeout=100)
    for _ in range(2):
        forget(node)
        done = node.run(SAY, order)
        assert (done.code, done.err, done.out.splitlines()[-2]) == (0, "", "gamma 1.0")
    assert source_of(done) == "unpacked from the workspace"


def test_one_killed_while_it_unpacks_does_not_pass_for_whole(node: Node, order: JobOrder) -> None:
    node.run("true", order)
    archive, prefix = archive_of(node), prefix_of(node, order)
    data = archive.read_bytes()
    forget(node)
    archive.unlink()
    os.mkfifo(archive)
    process = node.start(SAY, order)
    with archive.open("wb") as pipe:
        pipe.write(data[:-100])
        pipe.flush()
        while not list(prefix.glob("*")):
            assert process.poll() is None
        process.kill()
        process.communicate(timeout=100)
        archive.unlink()
        archive.write_bytes(data)
    done = node.run(SAY, order)
    assert (done.code, done.err, source_of(done)) == (0, "", "unpacked from the workspace")


def prefix_of(node: Node, order: JobOrder) -> Path:
    assert order.environment is not None
    return Path(node.variables["MLFLOW_AZURE_CACHE"]) / "environments" / order.environment.key[:32]


def test_a_job_that_is_ended_does_not_wait_for_the_packing(node: Node, tmp_path: Path) -> None:
    """The packer hangs in compiling, which never ends."""
    prefix = tmp_path / "prefix"
    for part in ("bin", "lib"):
        (prefix / part).mkdir(parents=True)
    (prefix / "bin/python").write_text("#!/bin/sh\nexec sleep 1000\n")
    (prefix / "bin/python").chmod(0o755)
    code = f"""import pathlib, sys
sys.path.insert(0, {str(node.working / RUNTIME_FILE)!r})
from mlflow_azure_runtime.packer import Packer
prefix, tmp = pathlib.Path({str(prefix)!r}), pathlib.Path({str(tmp_path)!r})
packer = Packer(prefix, tmp / "kept", "key", tmp, 0.0)
looks = iter([False, False, True])
print(packer.finish(unless=lambda: next(looks)), packer.pid)"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    said, _, pid = done.stdout.strip().rpartition(" ")
    assert (said, done.stderr) == ("not kept: the job was ended", "")
    assert not Path(f"/proc/{pid}").exists()
    assert not (tmp_path / "kept").exists()


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize("spoil", ["flipped", "cut", "gone"])
def test_a_damaged_archive_is_passed_over_and_replaced(node: Node, order: JobOrder, spoil: str) -> None:
    node.run("true", order)
    archive = archive_of(node)
    data = archive.read_bytes()
    spoiled = {"flipped": data[:-100] + bytes([data[-100] ^ 1]) + data[-99:], "cut": data[: len(data) // 2]}
    archive.unlink()
    if spoil in spoiled:
        archive.write_bytes(spoiled[spoil])
    forget(node)
    done = node.run(SAY, order)
    assert (done.code, done.err, source_of(done)) == (0, "", "installed")
    assert "mlflow-azure: the environment that is kept in the workspace is passed over: " in done.out
    forget(node)
    assert source_of(node.run(SAY, order)) == "unpacked from the workspace"


def test_a_datastore_that_takes_nothing_fails_no_job(node: Node, order: JobOrder, small_disk: Path) -> None:
    (small_disk / "file").write_bytes(b"x" * 60_000)
    for place, reason in ((small_disk, "No space left"), (small_disk / "file", "File exists")):
        done = node.run(SAY, order, AZURE_ML_OUTPUT_kept=str(place))
        assert (done.code, done.err, source_of(done)) == (0, "", "installed")
        told = node.report().kept
        assert told is not None
        assert told.startswith("not kept: ")
        assert reason in told
        forget(node)
    assert not (small_disk / keeping.MARKER).exists()
    assert source_of(node.run(SAY, order, AZURE_ML_OUTPUT_kept=str(small_disk))) == "installed"


def test_what_the_command_changes_in_the_environment_is_not_kept(tmp_path: Path) -> None:
    prefix, kept = tmp_path / "prefix", tmp_path / "kept"
    (prefix / "lib/odd \u2603\nname").mkdir(parents=True)
    (prefix / "lib/module.py").write_text("1")
    (prefix / "lib/link").symlink_to("/nowhere")
    listed = keeping.listing(prefix)
    (prefix / "lib/own.txt").write_text("the command's")
    (prefix / "lib/__pycache__").mkdir()
    (prefix / "lib/__pycache__/module.cpython-311.pyc").write_text("compiled")
    keeping.pack(prefix, listed, kept, "key", tmp_path)
    prefix.rename(tmp_path / "before")
    assert keeping.unpack(kept, prefix, "key")
    found = {path.relative_to(prefix).as_posix() for path in prefix.rglob("*")}
    compiled = {"lib/__pycache__", "lib/__pycache__/module.cpython-311.pyc"}
    assert found == {"lib", "lib/odd \u2603\nname", "lib/module.py", "lib/link", *compiled}
    with pytest.raises(keeping.Unusable, match="was packed for"):
        keeping.unpack(kept, tmp_path / "elsewhere", "key")
    listed = keeping.listing(prefix)
    (prefix / "lib/module.py").write_text("2")
    with pytest.raises(keeping.Unusable, match=r"lib/module\.py was changed while the command ran"):
        keeping.pack(prefix, listed, kept, "key", tmp_path)


def outside(archive: tarfile.TarFile) -> None:
    archive.addfile(tarfile.TarInfo("../escaped"), io.BytesIO())


def absolute(archive: tarfile.TarFile) -> None:
    archive.addfile(tarfile.TarInfo("/escaped"), io.BytesIO())


def through_a_link(archive: tarfile.TarFile) -> None:
    link = tarfile.TarInfo("lib")
    link.type, link.linkname = tarfile.SYMTYPE, ".."
    archive.addfile(link)
    archive.addfile(tarfile.TarInfo("lib/escaped"), io.BytesIO())


def over_a_link(archive: tarfile.TarFile) -> None:
    link = tarfile.TarInfo("lib")
    link.type, link.linkname = tarfile.SYMTYPE, "../escaped"
    archive.addfile(link)
    archive.addfile(tarfile.TarInfo("lib"), io.BytesIO())


def hard_link_out(archive: tarfile.TarFile) -> None:
    link = tarfile.TarInfo("lib")
    link.type, link.linkname = tarfile.LNKTYPE, "../secret"
    archive.addfile(link)


def device(archive: tarfile.TarFile) -> None:
    entry = tarfile.TarInfo("null")
    entry.type, entry.devmajor, entry.devminor = tarfile.CHRTYPE, 1, 3
    archive.addfile(entry)


@pytest.mark.parametrize("hostile", [outside, absolute, through_a_link, over_a_link, hard_link_out, device])
def test_no_archive_writes_outside_of_its_folder(hostile: Callable[[tarfile.TarFile], None], tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        hostile(archive)
    digest = hashlib.sha256(packed.getvalue()).hexdigest()
    kept, prefix = tmp_path / "kept", tmp_path / "prefix"
    kept.mkdir()
    (kept / f"{digest}.tar.gz").write_bytes(packed.getvalue())
    (kept / keeping.MARKER).write_text(json.dumps({"key": "key", "prefix": str(prefix), "sha256": digest}))
    with pytest.raises(keeping.Unusable, match="leads out of it"):
        keeping.unpack(kept, prefix, "key")
    assert {path.name for path in tmp_path.iterdir()} == {"secret", "kept", "prefix"}
    assert not Path("/escaped").exists()


def test_a_conda_environment_is_made_by_the_sealed_installer_and_activated(
    node: Node,
    lab: Channel,
    read_conda: ReadProject,
    folder: Path,
    cache: Path,
) -> None:
    spec = read_conda("alpha", "scripted", head='channels: [lab]\nvariables: {GREETING: "it\'s"}')
    lock = resolve(spec, cache=cache)
    node.lay(lock_files(lock, folder, rattler_config(os.environ)))
    order = JobOrder(locked_environment(lock, kept_in="kept"))
    done = node.run('beta-say; echo "$SCRIPTED $GREETING"', order)
    prefix = f"{node.variables['MLFLOW_AZURE_CACHE']}/environments/{lock.key[:32]}"
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[1:] == [f"beta 1.0 in {prefix}", f"it's {prefix} it's"]
    forget(node)
    again = node.run('beta-say; echo "$SCRIPTED $GREETING"', order)
    assert source_of(again) == "unpacked from the workspace"
    assert again.out.splitlines()[1:] == done.out.splitlines()[1:]


def test_a_prefix_in_the_image_is_activated(node: Node, lock: EnvironmentLock, order: JobOrder) -> None:
    node.run("true", order)
    prefix = f"{node.variables['MLFLOW_AZURE_CACHE']}/environments/{lock.key[:32]}"
    done = node.run("gamma-say; echo $VIRTUAL_ENV", JobOrder(prefix=prefix))
    assert (done.code, done.out) == (0, f"gamma 1.0\n{prefix}\n")


def test_a_node_without_egress_is_told_what_to_do(node: Node, order: JobOrder, bare_image: Path) -> None:
    nowhere = {"UV_DEFAULT_INDEX": "http://127.0.0.1:1/simple", "UV_HTTP_RETRIES": "0"}
    (node.working / ".mlflow-azure/indexes.txt").unlink()
    check_says_what_to_do(node, order, nowhere)
    # An image whose Python has no uv: pip is to fetch it.
    node.python = bare_image
    check_says_what_to_do(node, order, {"PIP_INDEX_URL": "http://127.0.0.1:1/simple", "PIP_RETRIES": "0"})


def check_says_what_to_do(node: Node, order: JobOrder, variables: Mapping[str, str]) -> None:
    done = node.run("echo never", order, **variables)
    assert (done.code, done.out) == (1, "")
    assert done.err.count("\n") == 1
    assert done.err.startswith("mlflow-azure: ")
    assert "this node does not reach what it needs" in done.err
    assert '"environment": {"build": "image"}' in done.err
    assert node.report().problem == done.err[len("mlflow-azure: ") : -1]


def test_an_image_without_the_environment_s_python_is_told_so(node: Node, order: JobOrder) -> None:
    assert order.environment is not None
    done = node.run("echo never", JobOrder(replace(order.environment, python="3.99")))
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("mlflow-azure: making an environment of Python 3.99 failed: ")
    assert done.err.endswith(
        "; name an image that has Python 3.99, or let the node reach github.com, where uv gets it\n"
    )


@pytest.mark.package_index
def test_an_image_without_uv_gets_it_by_pip(node: Node, order: JobOrder, bare_image: Path) -> None:
    node.python = bare_image
    pips = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "HTTPS_", "SSL_", "UV_"))}
    done = node.run(SAY, order, **pips)
    assert (done.code, done.err, source_of(done)) == (0, "", "installed")
    installed = subprocess.run([node.python / "python3", "-m", "pip", "list"], capture_output=True, text=True)
    assert "uv" not in installed.stdout.split()


def test_a_full_disk_is_named(node: Node, order: JobOrder, small_disk: Path) -> None:
    place = {"MLFLOW_AZURE_CACHE": str(small_disk), "UV_CACHE_DIR": str(small_disk / "uv")}
    (small_disk / "file").write_bytes(b"x" * 60_000)
    done = node.run("echo never", order, **place)
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert "No space left on device" in done.err
    (small_disk / "environments").rename(small_disk / "before")
    (small_disk / "environments").touch()
    done = node.run("echo never", order, **place)
    assert done.err == f"mlflow-azure: this node's disk refuses: File exists: {small_disk / 'environments'}\n"


def test_a_folder_that_others_may_write_to_is_not_used(node: Node, order: JobOrder) -> None:
    folder = Path(node.variables["MLFLOW_AZURE_CACHE"])
    folder.mkdir()
    folder.chmod(0o777)
    done = node.run("true", order)
    assert (done.code, done.out) == (1, "")
    assert "is not this user's alone; set the variable MLFLOW_AZURE_CACHE" in done.err
