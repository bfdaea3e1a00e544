"""From a conda.yaml to a conda-lock.yml: solved without conda, read by conda-lock, the same bytes for the same wish."""

from __future__ import annotations

import json
import os
import platform
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from mlflow_azure_backend.environment.carried import carried_lock
from mlflow_azure_backend.environment.resolving import recorded_lock, resolve
from mlflow_azure_backend.environment.spec import read_environment
from mlflow_azure_backend.errors import EnvironmentUnavailable
from tests.conda_channel import PYTHON, Channel, CondaServer

if TYPE_CHECKING:
    from mlflow_azure_backend.environment.spec import EnvironmentSpec
    from tests.environment.conftest import MakeWheel, ReadProject

MINOR = ".".join(platform.python_version_tuple()[:2])
LAB = "channels: [lab]"


def contents(folder: Path) -> str:
    return "\n".join(path.read_text(errors="replace") for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def mixed(make_wheel: MakeWheel, read_conda: ReadProject) -> None:
    """A project of conda's python and numpy, with a wheel that needs another one and numpy."""
    make_wheel("gamma", "1.0", requires=("delta>=2", "numpy"))
    make_wheel("delta", "2.0")
    make_wheel("numpy", "99.0")
    read_conda(f"python={MINOR}", "numpy", pip=("gamma",))


def read(folder: Path, solver: str | None = None) -> EnvironmentSpec:
    path = folder / "conda.yaml"
    return read_environment("conda_env", path, folder=folder, env_manager=None, current=False, solver=solver)


@pytest.mark.usefixtures("mixed")
def test_a_lock_is_the_same_everywhere_and_says_nothing_of_this_machine(
    folder: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = resolve(read(folder), cache=cache)
    names = {package.name: package.manager for package in lock.packages}
    expected = {"python": "conda", "numpy": "conda", "pip": "conda", "gamma": "pip", "delta": "pip"}
    assert (lock.kind, lock.file_name, lock.python_version, names) == ("conda", "conda-lock.yml", PYTHON, expected)
    assert lock.version_of("numpy") != "99.0"
    assert "file:wheels/gamma-1.0-py3-none-any.whl" in lock.text
    assert "https://conda.anaconda.org/conda-forge/" in lock.text
    for private in (str(tmp_path), "127.0.0.1", folder.name):
        assert private not in lock.text

    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(folder, elsewhere)
    monkeypatch.setenv("RATTLER_CACHE_DIR", str(tmp_path / "other-rattler-cache"))
    other = resolve(read(elsewhere), cache=tmp_path / "other-cache")
    assert (other.text, other.key) == (lock.text, lock.key)
    again = recorded_lock(lock.file_name, lock.text, read(folder))
    assert (again.key, again.packages, again.text) == (lock.key, lock.packages, lock.text)


@pytest.mark.usefixtures("mixed")
def test_conda_lock_itself_reads_the_lock(folder: Path, cache: Path, tmp_path: Path) -> None:
    lock = resolve(read(folder), cache=cache)
    file = tmp_path / "conda-lock.yml"
    file.write_text(lock.text)
    render = [
        sys.executable,
        "-m",
        "conda_lock",
        "render",
        str(file),
        "-p",
        lock.text.split("platform: ")[1].split("\n")[0],
    ]
    done = subprocess.run([*render, "-k", "explicit", "-k", "env"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    explicit, environment = sorted(tmp_path.glob("conda-*.lock*"))
    lines = explicit.read_text().splitlines()
    assert "@EXPLICIT" in lines
    conda = {package.url for package in lock.packages if package.manager == "conda"}
    assert {line.partition("#")[0] for line in lines if line.startswith("https://")} == conda
    rendered = yaml.safe_load(environment.read_text())
    assert rendered["channels"] == ["conda-forge"]
    assert f"python={PYTHON}=0_cpython" in rendered["dependencies"]
    pip = {line.split(" ")[0] for line in rendered["dependencies"][-1]["pip"]}
    assert pip == {"gamma", "delta"}


@pytest.mark.usefixtures("mixed")
def test_conda_lock_itself_installs_the_lock(folder: Path, cache: Path, tmp_path: Path, conda: Path) -> None:
    lock = resolve(read(folder), cache=cache)
    # A wheel of the project's own has an address that only our installer understands.
    text = lock.text.replace("file:wheels/", f"{(folder / 'wheels').as_uri()}/")
    (folder / "conda-lock.yml").write_text(text)
    prefix = tmp_path / "prefix"
    install = [sys.executable, "-m", "conda_lock", "install", "--conda", str(conda), "--prefix", str(prefix)]
    done = subprocess.run([*install, "conda-lock.yml"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ask = "import gamma, delta, numpy, sys; print(numpy.__version__, sys.prefix)"
    said = subprocess.run([prefix / "bin/python", "-c", ask], check=True, capture_output=True, text=True).stdout
    assert said == f"{lock.version_of('numpy')} {prefix}\n"


@pytest.mark.usefixtures("mixed")
def test_a_conda_of_the_user_s_solves_only_where_it_is_named(
    folder: Path, tmp_path: Path, conda: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same question, so the same answer to the byte, whoever is asked."""
    monkeypatch.setenv("PATH", f"{conda.parent}:{os.environ['PATH']}")
    lock = resolve(read(folder), cache=tmp_path / "cache")
    assert not conda.with_name("asked").exists()
    stages = list[str]()
    for cache, solver in ((tmp_path / "one", "conda"), (tmp_path / "other", str(conda))):
        named = resolve(read(folder, solver=solver), cache=cache, on_progress=stages.append)
        assert (named.text, named.key) == (lock.text, lock.key)
        assert stages[-2] == "conda resolves 3 conda packages for linux-64"
    asked = conda.with_name("asked").read_text().splitlines()
    assert len(asked) == 2
    assert "create --prefix" in asked[0]
    assert "--override-channels --channel conda-forge --channel file://" in asked[0]
    # Another answer, once kept, does not stand for rattler's.
    assert resolve(read(folder), cache=cache, on_progress=stages.append).key == lock.key
    assert stages[-2] == "resolving 3 conda packages for linux-64"


def test_what_the_named_solver_says_is_one_line(
    cache: Path,
    lab: Channel,
    conda: Path,
    tmp_path: Path,
    read_conda: ReadProject,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stranger = tmp_path / "stranger"
    stranger.write_text("#!/bin/sh\necho hello\n")
    stranger.chmod(0o755)
    cases = [
        ("alpha >=7", conda, f"{conda} finds nothing for linux-64: Cannot solve the request because of: No candidates"),
        ("alpha", stranger, f"{stranger} does not answer as conda does (RuntimeError: Failed to parse json: 'hello "),
        (
            "alpha",
            tmp_path / "none",
            f"environment.solver: there is no program {tmp_path}/none; name a conda, mamba or",
        ),
    ]
    for line, solver, expected in cases:
        with pytest.raises(EnvironmentUnavailable) as caught:
            resolve(read_conda(line, head=LAB, solver=str(solver)), cache=cache)
        assert str(caught.value).startswith(expected)
        assert "\n" not in str(caught.value)
    monkeypatch.setenv("MLFLOW_CONDA_HOME", str(conda.parent))
    said = 'MLFLOW_CONDA_HOME is not used, for no conda is needed; "environment": {"solver": PROGRAM} lets a conda of'
    assert read_conda("alpha", head=LAB).notes[0].startswith(said)
    with pytest.raises(EnvironmentUnavailable, match="would be seen by everybody on the solver's command line"):
        read_conda("alpha", head="channels: ['https://canary:canary@127.0.0.1/lab']", solver=str(conda))
    assert [path.name for path in cache.iterdir()] == ["locks"]


HIT = """
import sys
from pathlib import Path
from mlflow_azure_backend.environment.resolving import resolve
from mlflow_azure_backend.environment.spec import read_environment
folder, cache = map(Path, sys.argv[1:])
spec = read_environment("conda_env", folder / "conda.yaml", folder=folder, env_manager=None, current=False)
stages = []
lock = resolve(spec, cache=cache, on_progress=stages.append)
print(lock.key, len(stages), [name for name in ("rattler", "conda_lock", "uv", "pydantic") if name in sys.modules])
"""


def test_a_kept_lock_needs_neither_solver_nor_network(
    folder: Path, cache: Path, lab: Channel, read_conda: ReadProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = list[str]()
    lock = resolve(read_conda("alpha", head=LAB), cache=cache, on_progress=stages.append)
    assert stages == ["resolving 1 conda packages for linux-64"]
    monkeypatch.setenv("RATTLER_HOME", "/nowhere")
    done = subprocess.run([sys.executable, "-c", HIT, str(folder), str(cache)], capture_output=True, text=True)
    assert done.stdout == f"{lock.key} 0 []\n", done.stderr


def test_processes_that_want_the_same_resolve_it_once(
    folder: Path, cache: Path, lab: Channel, read_conda: ReadProject
) -> None:
    read_conda("alpha", head=LAB)
    command = [sys.executable, "-c", HIT, str(folder), str(cache)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    outputs = [process.communicate(timeout=200)[0].split() for process in started]
    assert len({output[0] for output in outputs}) == 1
    assert sorted(output[2] for output in outputs) == ["[]"] * 4


def test_a_lock_changes_only_when_asked(conda_server: CondaServer, cache: Path, read_conda: ReadProject) -> None:
    channel = conda_server.channel("growing")
    channel.add("grown", "1.0")
    channel.index()
    spec = read_conda("grown", head="channels: [growing]")
    assert resolve(spec, cache=cache).version_of("grown") == "1.0"
    channel.add("grown", "2.0")
    channel.index()
    assert resolve(spec, cache=cache).version_of("grown") == "1.0"
    assert resolve(spec, cache=cache, upgrade=True).version_of("grown") == "2.0"
    assert resolve(spec, cache=cache).version_of("grown") == "2.0"


def test_each_platform_has_its_packages_and_the_key_is_this_one_s(
    conda_server: CondaServer, cache: Path, read_conda: ReadProject
) -> None:
    channel = conda_server.channel("two")
    channel.add("common", "1.0")
    channel.add("native", "1.0", noarch=None, subdir="linux-64")
    channel.add("native", "2.0", noarch=None, subdir="osx-arm64")
    channel.index()
    head = "channels: [two]\nplatforms: [linux-64{}]"
    both = resolve(read_conda("common", "native", head=head.format(", osx-arm64")), cache=cache)
    one = resolve(read_conda("common", "native", head=head.format("")), cache=cache)
    assert both.version_of("native") == one.version_of("native") == "1.0"
    assert both.text.count("name: native") == 2
    assert (both.key, both.text) != (both.key, one.text)
    assert both.key == one.key
    with pytest.raises(
        EnvironmentUnavailable, match=r"^the recorded environment is for osx-arm64, osx-arm64, and this is linux-64"
    ):
        recorded_lock(
            "conda-lock.yml", both.text.replace("linux-64", "osx-arm64"), read_conda("common", head=head.format(""))
        )
    with pytest.raises(EnvironmentUnavailable, match=r"^conda-lock\.yml: no conda-lock file of version 1 \(KeyError"):
        recorded_lock("conda-lock.yml", "version: 1\n", read_conda("common", head=head.format("")))


def test_a_lock_beside_the_project_is_used_while_it_answers(
    folder: Path, cache: Path, lab: Channel, read_conda: ReadProject
) -> None:
    spec = read_conda("alpha", head=LAB)
    assert carried_lock(spec) is None
    lock = resolve(spec, cache=cache)
    (folder / lock.file_name).write_text(lock.text)
    carried = carried_lock(spec)
    assert carried is not None
    assert carried.lock == lock
    stale = carried_lock(read_conda("beta", head=LAB))
    assert stale is not None
    assert stale.reason == "the project asks for something else than when it was locked"
    clash = carried_lock(read_conda("alpha", "beta >=2", head=LAB))
    assert clash is not None
    assert clash.reason == "conda.yaml:4 asks for beta >=2, and it has beta 1.0 0"
    (folder / lock.file_name).write_text("metadata: {platforms: [linux-64], custom_metadata: {variables: '{'}}")
    broken = carried_lock(spec)
    assert broken is not None
    assert str(broken.reason).startswith("no conda-lock file of version 1 (JSONDecodeError")


def test_a_lock_of_conda_lock_s_is_compared_line_by_line(
    folder: Path, cache: Path, lab: Channel, make_wheel: MakeWheel, read_conda: ReadProject
) -> None:
    make_wheel("gamma", "1.0")
    head = "channels: [lab, conda-forge, nodefaults]"
    lock = resolve(read_conda("alpha", f"python={MINOR}", pip=("gamma>=1",), head=head), cache=cache)
    document = yaml.safe_load(lock.text)
    document["metadata"]["content_hash"] = dict.fromkeys(document["metadata"]["content_hash"], "0" * 64)

    def reason(*lines: str, pip: str = "gamma", text: str = yaml.safe_dump(document), head: str = head) -> str | None:
        (folder / "conda-lock.yml").write_text(text)
        carried = carried_lock(read_conda(*lines, f"python={MINOR}", pip=(pip,), head=head))
        assert carried is not None
        assert (carried.lock is None) == (carried.reason is not None)
        assert carried.lock is None or carried.lock.key == lock.key
        return carried.reason

    assert reason("alpha =1", "lab::beta <2", "nothing  # [win]", pip="gamma==1.*") is None
    expected = {
        ("beta[build=x*]",): "conda.yaml:3 asks for beta[build=x*], and it has beta 1.0 0",
        ("conda-forge::beta",): "conda.yaml:3 asks for conda-forge::beta, and it has beta of another channel",
        ("on-gpu",): "conda.yaml:3 asks for on-gpu, which it does not have for linux-64",
    }
    assert {lines: reason(*lines) for lines in expected} == expected
    assert reason(pip="gamma>1") == "conda.yaml:7 asks for gamma>1, and it has gamma 1.0"
    assert reason(head=LAB) == "it was made for other channels"
    assert reason(head=f"variables: {{A: b}}\n{head}") == "it does not set the variables that the project sets"
    text = yaml.safe_dump(document)
    assert reason(text=text.replace("category: main", "category: dev", 1)) == "it has packages of the category dev"
    assert reason(text=text.replace("gamma-1.0-py3-none-any.whl", "gamma-1.0.tar.gz")) == "gamma is no wheel"
    other = text.replace("/alpha-1.0-0.conda", "/alpha-2.0-0.conda")
    assert reason("alpha", text=other) == "alpha 1.0 has an address of another package"
    secret = text.replace("https://conda.anaconda.org", "https://u:canary@conda.anaconda.org")
    assert str(reason(text=secret)).endswith(" holds credentials")


def test_only_declared_virtual_packages_count(
    folder: Path, cache: Path, lab: Channel, read_conda: ReadProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONDA_OVERRIDE_CUDA", "12.9")
    with pytest.raises(EnvironmentUnavailable) as caught:
        resolve(read_conda("on-gpu", head=LAB), cache=cache)
    assert str(caught.value).startswith(
        "conda.yaml:3: no versions fit together on linux-64: on-gpu * cannot be installed"
    )
    assert "__cuda >=12" in str(caught.value)
    declared = read_environment(
        "conda_env",
        folder / "conda.yaml",
        folder=folder,
        env_manager=None,
        current=False,
        virtual_packages={"__cuda": "12.4"},
    )
    assert resolve(declared, cache=cache).version_of("on-gpu") == "1.0"


@pytest.mark.usefixtures("lab")
def test_what_cannot_be_solved_is_said_with_its_lines(cache: Path, read_conda: ReadProject) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        dead = f"http://canary:canary@127.0.0.1:{server.getsockname()[1]}/dead"
    cases: list[tuple[tuple[str, ...], str, str]] = [
        (
            ("alpha", "beta >=2"),
            LAB,
            "conda.yaml:3, conda.yaml:4: no versions fit together on linux-64: alpha * cannot be installed because there are "
            "no viable options: alpha 1.0 would require beta <2, for which no candidates were found, while beta >=2 is asked "
            "for",
        ),
        (
            ("nowhere",),
            LAB,
            "conda.yaml:3: no channel has a package named nowhere for linux-64; check its spelling and the channels, or list "
            "the platforms that it is for under platforms",
        ),
        (
            ("alpha >=7",),
            LAB,
            "conda.yaml:3: no channel has alpha >=7 for linux-64; ask for another version, or add a channel that has it",
        ),
        (
            ("python=2.0",),
            "channels: [conda-forge]",
            "conda.yaml:3: no channel has python 2.0.* for linux-64; ask for another version, or add a channel that has it",
        ),
        (
            ("alpha",),
            "channels: [missing]",
            "there is no channel https://conda.anaconda.org/missing; check the name under channels",
        ),
        (("alpha",), f"channels: ['{dead}']", "the channel cannot be reached: "),
        (
            ("alpha >=>1",),
            LAB,
            "conda.yaml:3: 'alpha >=>1' is not a conda specification: ",
        ),
    ]
    for lines, head, expected in cases:
        with pytest.raises(EnvironmentUnavailable) as caught:
            resolve(read_conda(*lines, head=head), cache=cache)
        assert str(caught.value).startswith(expected)
        assert "\n" not in str(caught.value)
        assert "canary" not in str(caught.value)
    assert not [path for path in (cache / "locks").iterdir() if path.suffix != ".lock"]


def test_what_pip_wants_has_to_fit_beside_conda(
    folder: Path, cache: Path, make_wheel: MakeWheel, read_conda: ReadProject
) -> None:
    make_wheel("gamma", "1.0", requires=("numpy<1",))
    make_wheel("delta", "2.0")
    shutil.copy(folder / "wheels/delta-2.0-py3-none-any.whl", folder / "wheels/epsilon-1.0-cp311-cp311-win_amd64.whl")
    (folder / "wheels/delta-2.0-py3-none-any.whl").unlink()
    (folder / "wheels/zeta-1.0.tar.gz").write_bytes(b"")
    python = (f"python={MINOR}", "numpy")
    cases: list[tuple[tuple[str, ...], str]] = [
        (
            ("gamma",),
            "conda.yaml:8, conda.yaml:4: no versions fit together for gamma and numpy (of conda): because all versions of gamma "
            "depend on numpy<1",
        ),
        (("epsilon",), "conda.yaml:8: no versions fit together: because epsilon==1.0 has no wheels with a matching"),
        (("zeta",), "conda.yaml:8: "),
        (("nowhere",), "conda.yaml:8: no package named nowhere is on the package index"),
    ]
    said = {}
    for pip, expected in cases:
        with pytest.raises(EnvironmentUnavailable) as caught:
            resolve(read_conda(*python, pip=pip), cache=cache)
        said[pip[0]] = str(caught.value)
        assert said[pip[0]].startswith(expected), said
        assert "\n" not in said[pip[0]]
    assert "(of conda)" in said["gamma"]
    assert said["gamma"].endswith("bound the conda package, or list the package in the pip section only")
    assert said["zeta"].endswith("take a version that has a wheel, or the conda package of it")


@pytest.mark.parametrize("way", ["address", "token", "netrc", "file"])
def test_a_private_channel_is_opened_and_its_password_stays_out(
    folder: Path,
    cache: Path,
    tmp_path: Path,
    read_conda: ReadProject,
    conda_server: CondaServer,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
) -> None:
    channel = conda_server.channel("private")
    if "private" not in conda_server.private:
        channel.add("secretive", "1.0", {"share/secretive": "x"})
        channel.index()
        conda_server.private.add("private")
    public = f"{conda_server.url}/private"
    user, password, token = conda_server.user, conda_server.password, conda_server.token
    with pytest.raises(EnvironmentUnavailable, match="refuses us: no valid credentials"):
        resolve(read_conda("secretive", head=f"channels: ['{public}']"), cache=cache)
    if way == "netrc":
        (tmp_path / "netrc").write_text(f"machine 127.0.0.1 login {user} password {password}\n")
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    elif way == "file":
        entry = {"127.0.0.1": {"BasicHTTP": {"username": user, "password": password}}}
        (tmp_path / "auth.json").write_text(json.dumps(entry))
        monkeypatch.setenv("RATTLER_AUTH_FILE", str(tmp_path / "auth.json"))
    address = {
        "address": public.replace("://", f"://{user}:{password}@"),
        "token": f"{conda_server.url}/t/{token}/private",
    }.get(way, public)
    lock = resolve(read_conda("secretive", head=f"channels: ['{address}']"), cache=cache)
    assert lock.version_of("secretive") == "1.0"
    assert public in lock.text
    assert "canary" not in lock.text + repr(lock) + contents(cache)
