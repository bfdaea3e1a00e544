"""Locks that a project carries: used as they are when they match, and one line that says why when they do not."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mlflow_azure_backend.containers.context import base_image_for
from mlflow_azure_backend.environment.carried import carried_lock, wish
from mlflow_azure_backend.environment.pylock import pylock_of
from mlflow_azure_backend.environment.resolving import recorded_lock, resolve
from mlflow_azure_backend.environment.store import ensure_prefix
from mlflow_azure_backend.errors import EnvironmentUnavailable

if TYPE_CHECKING:
    from mlflow_azure_backend.environment.spec import EnvironmentSpec
    from tests.environment.conftest import Index, MakeWheel, ReadProject

DIGEST = "0" * 64
COMMIT = "0123456789" * 4
WHEEL = f'{{url = "https://h/alpha-1.0-py3-none-any.whl", hashes = {{sha256 = "{DIGEST}"}}}}'
HEAD = 'lock-version = "1.0"\ncreated-by = "a hand"\n'
ALPHA = f'[[packages]]\nname = "Alpha"\nversion = "1.0"\nwheels = [{WHEEL}]\n'


def written(spec: EnvironmentSpec, text: str, name: str = "pylock.toml") -> str | None:
    """Why a lock with this text is not used; None when it is."""
    (spec.folder / name).write_text(text, encoding="utf-8")
    carried = carried_lock(spec)
    assert carried is not None
    assert (carried.lock is None) is (carried.reason is not None)
    assert "\n" not in carried.note
    return carried.reason


def test_a_lock_of_ours_is_used_and_builds_the_same(
    folder: Path, cache: Path, make_wheel: MakeWheel, read: ReadProject
) -> None:
    make_wheel("alpha", "1.0", requires=("beta",))
    make_wheel("beta", "2.0")
    spec = read("alpha")
    assert carried_lock(spec) is None
    lock = resolve(spec, cache=cache)
    text = pylock_of(lock, spec)
    assert text == pylock_of(lock, spec)
    assert 'path = "wheels/alpha-1.0-py3-none-any.whl"' in text
    assert str(folder.parent) not in text
    make_wheel("beta", "3.0")
    assert written(spec, text) is None
    carried = carried_lock(spec)
    assert carried is not None
    assert carried.lock is not None
    assert carried.lock.key == lock.key
    assert ensure_prefix(carried.lock, cache=cache).path.is_dir()
    assert recorded_lock(carried.lock.file_name, carried.lock.text, spec) == carried.lock


def test_a_changed_wish_is_noticed(cache: Path, make_wheel: MakeWheel, read: ReadProject) -> None:
    make_wheel("alpha", "1.0")
    make_wheel("beta", "1.0")
    spec = read("alpha", "beta")
    text = pylock_of(resolve(spec, cache=cache), spec)
    assert written(read("beta", "alpha"), text) == "python_env.yaml asks for something else than when it was locked"
    assert written(read("alpha"), text) == "python_env.yaml asks for something else than when it was locked"
    assert written(read("alpha", "beta>1"), text) == "python_env.yaml:5 asks for beta>1, and it has beta 1.0"
    assert written(read("alpha", "beta", "gamma"), text) == "python_env.yaml:6 asks for gamma, which it does not have"
    assert written(read("alpha", "beta"), text) is None


@pytest.mark.parametrize(
    ("lines", "text", "reason"),
    [
        (["alpha"], ALPHA, None),
        (["ALPHA==1.*"], ALPHA, None),
        (["alpha", "gamma ; sys_platform == 'win32'"], ALPHA, None),
        (["alpha"], f'requires-python = ">=3.8"\n{ALPHA}', None),
        (
            ["alpha"],
            f'requires-python = "<3"\n{ALPHA}',
            f"it is for python <3, and {platform.python_version()} is wanted",
        ),
        (["alpha>=2"], ALPHA, "python_env.yaml:4 asks for alpha>=2, and it has alpha 1.0"),
        (["beta"], ALPHA, "python_env.yaml:4 asks for beta, which it does not have"),
        (["alpha", "-c bound.txt"], ALPHA, "bound.txt:1 asks for alpha<1, and it has alpha 1.0"),
        ([f"alpha --hash=sha256:{'1' * 64}"], ALPHA, "python_env.yaml:4: none of the hashes is that of alpha in it"),
        (["alpha"], ALPHA.replace("py3-none-any", "cp27-cp27mu-win32"), "it has no wheel of Alpha for python"),
        (
            ["alpha"],
            ALPHA.replace("version", "marker = \"sys_platform == 'win32'\"\nversion"),
            "python_env.yaml:4 asks for alpha",
        ),
        (["alpha"], ALPHA.replace(f'{{sha256 = "{DIGEST}"}}', '{md5 = "00"}'), "alpha has no sha256 hash"),
        (
            ["alpha"],
            '[[packages]]\nname = "alpha"\ndirectory = {path = "."}\n',
            "alpha is a folder, which no lock can carry",
        ),
        (
            ["alpha"],
            '[[packages]]\nname = "alpha"\nvcs = {type = "hg"}\n',
            "alpha comes from hg: uv installs from git only",
        ),
        (
            ["alpha"],
            '[[packages]]\nname = "alpha"\narchive = {url = "https://u:canary@h/a.zip", hashes = {}}',
            "the address of alpha holds credentials",
        ),
        (["alpha"], "[[packages]]\nversion = 1\n", "it is no PEP 751 lock (KeyError: 'name')"),
        (["alpha"], "packages = 3\n", "it is no PEP 751 lock (TypeError:"),
        (["alpha"], "half = [", "it is no TOML ("),
        (
            ["alpha"],
            ALPHA.replace('1.0"', '1.0\\n--index-url http://h"', 1),
            "alpha has blanks in its version or address",
        ),
    ],
)
def test_a_foreign_lock_matches_or_why_not(
    folder: Path, read: ReadProject, lines: list[str], text: str, reason: str | None
) -> None:
    (folder / "bound.txt").write_text("alpha<1\n")
    found = written(read(*lines), HEAD + text)
    assert found is reason is None or str(found).startswith(str(reason))
    assert "canary" not in str(found)


def test_another_format_is_not_guessed_at(read: ReadProject) -> None:
    assert written(read(), 'lock-version = "2.0"') == "its lock-version is not 1"
    (read().folder / "pylock.toml").write_bytes(b"\xff")
    assert str(getattr(carried_lock(read()), "reason", None)) == "it cannot be read (not UTF-8)"


@pytest.mark.parametrize(
    ("line", "matches"),
    [
        ("alpha @ git+https://h/alpha.git@main", True),
        ("git+https://h/alpha", True),
        (f"alpha @ git+https://h/alpha@{COMMIT}", True),
        (f"alpha @ git+https://h/alpha@{COMMIT[::-1]}", False),
        ("alpha @ git+https://elsewhere/alpha", False),
        ("git+https://elsewhere/alpha", False),
    ],
)
def test_git_matches_by_address_and_commit(read: ReadProject, line: str, matches: bool) -> None:
    vcs = f'vcs = {{type = "git", url = "https://h/alpha.git", commit-id = "{COMMIT}", subdirectory = "in"}}'
    spec = read(line)
    assert (written(spec, f'{HEAD}[[packages]]\nname = "alpha"\n{vcs}\n') is None) is matches
    carried = carried_lock(spec)
    assert carried is not None
    if carried.lock is not None:
        assert carried.lock.packages[0].url == f"git+https://h/alpha.git@{COMMIT}#subdirectory=in"


def uv_project(folder: Path, *names: str) -> None:
    wanted = ", ".join(f'"{name}"' for name in names)
    (folder / "pyproject.toml").write_text(
        f'[project]\nname = "mine"\nversion = "1"\nrequires-python = ">=3.8"\ndependencies = [{wanted}]\n'
        '[tool.uv]\nno-index = true\nfind-links = ["wheels"]\n'
    )
    command = [str(Path(sys.executable).parent / "uv"), "lock", "--quiet", "--project", str(folder)]
    environ = {**os.environ, "UV_PYTHON": sys.executable}
    subprocess.run(command, check=True, cwd=folder, env=environ, capture_output=True)


def test_uv_s_own_lock_is_used_when_it_matches(
    folder: Path, cache: Path, make_wheel: MakeWheel, read: ReadProject
) -> None:
    make_wheel("alpha", "1.0", requires=("beta",))
    make_wheel("beta", "1.0")
    uv_project(folder, "alpha")
    before = (folder / "uv.lock").read_bytes()
    make_wheel("beta", "2.0")
    carried = carried_lock(read("alpha"))
    assert carried is not None
    assert carried.lock is not None
    assert {package.name: package.version for package in carried.lock.packages} == {"alpha": "1.0", "beta": "1.0"}
    assert ensure_prefix(carried.lock, cache=cache).python.exists()
    stale = carried_lock(read("alpha", "gamma"))
    assert stale is not None
    assert stale.note == (
        "uv.lock is not used: python_env.yaml:5 asks for gamma, which it does not have; "
        "resolved anew (`mlflow-azure lock` renews it)"
    )
    assert (folder / "uv.lock").read_bytes() == before
    (folder / "uv.lock").write_text("version = 99\n")
    assert "uv cannot read it" in str(getattr(carried_lock(read("alpha")), "reason", None))


def test_a_lock_for_another_python_is_not_used(make_wheel: MakeWheel, read: ReadProject, cache: Path) -> None:
    make_wheel("alpha", "1.0")
    (read("alpha").folder / "pylock.toml").write_text(HEAD + ALPHA)
    with pytest.raises(EnvironmentUnavailable, match=r"python 3\.99 is not on this machine"):
        carried_lock(read("alpha", python="3.99"))


def test_in_a_container_the_python_of_the_lock_counts(make_wheel: MakeWheel, read: ReadProject) -> None:
    """This machine has neither of them; the image is chosen by it."""
    make_wheel("alpha", "1.0")
    wanted = replace(read("alpha", python="3.99"), in_container=True)
    assert written(wanted, HEAD + ALPHA) is None
    assert written(wanted, HEAD + 'requires-python = "<3"\n' + ALPHA) == "it is for python <3, and 3.99 is wanted"
    anything = replace(read("alpha"), in_container=True)
    (anything.folder / "pylock.toml").write_text(
        f'{HEAD}{ALPHA}[tool.mlflow-azure]\nwish = "{wish(anything)}"\npython = "3.98.1"\n'
    )
    carried = carried_lock(anything)
    assert carried is not None
    assert carried.lock is not None
    assert (carried.lock.python_version, base_image_for(carried.lock)) == ("3.98.1", "python:3.98-slim")
    assert written(anything, f"{HEAD}tool = 1\n{ALPHA}") is None


def test_credentials_and_files_of_this_machine_do_not_reach_a_lock_beside_the_project(
    tmp_path: Path, cache: Path, make_wheel: MakeWheel, read: ReadProject, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.add(make_wheel("alpha", "1.0"))
    monkeypatch.setenv("PIP_INDEX_URL", index.private_url)
    spec = read("alpha", offline=False)
    text = pylock_of(resolve(spec, cache=cache), spec)
    assert index.url in text
    assert "canary" not in text
    assert written(spec, text) is None
    monkeypatch.delenv("PIP_INDEX_URL")
    elsewhere = make_wheel("beta", "1.0", into=tmp_path / "elsewhere").parent
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", elsewhere.as_uri())
    spec = read("beta", offline=False)
    with pytest.raises(EnvironmentUnavailable, match="is a file of this machine, which no lock beside a project"):
        pylock_of(resolve(spec, cache=cache), spec)
