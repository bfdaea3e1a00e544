"""From a specification to exact packages: the same lock for the same wish, kept, and every refusal in one line."""

from __future__ import annotations

import importlib.metadata
import io
import platform
import re
import shutil
import socket
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mlflow_azure_backend.environment.interpreters import find_python, satisfies
from mlflow_azure_backend.environment.python_lock import current_lock
from mlflow_azure_backend.environment.resolving import resolve
from mlflow_azure_backend.environment.spec import read_environment
from mlflow_azure_backend.environment.uv_process import uv_failure
from mlflow_azure_backend.errors import EnvironmentUnavailable

if TYPE_CHECKING:
    from tests.environment.conftest import Index, MakeWheel, ReadProject


def contents(folder: Path) -> str:
    return "\n".join(path.read_text(errors="replace") for path in folder.rglob("*") if path.is_file())


def test_a_lock_is_exact_and_says_nothing_of_this_machine(
    tmp_path: Path, folder: Path, cache: Path, make_wheel: MakeWheel, read: ReadProject
) -> None:
    make_wheel("alpha", "1.0", requires=("beta>=2",))
    make_wheel("beta", "2.0")
    make_wheel("beta", "2.1")
    lock = resolve(read("alpha"), cache=cache)
    assert [(package.name, package.version) for package in lock.packages] == [("alpha", "1.0"), ("beta", "2.1")]
    head, alpha, *rest = re.split(r"\n(?=[a-z])", lock.text)
    assert head.splitlines()[1] == f"# python: {platform.python_version()} ({sys.implementation.name})"
    assert re.fullmatch(r"alpha==1\.0 \\\n    --hash=sha256:[0-9a-f]{64}", alpha)
    assert len(rest) == 1
    assert str(tmp_path) not in lock.text
    assert folder.name not in repr(lock)

    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(folder, elsewhere)
    path = elsewhere / "python_env.yaml"
    again = read_environment("python_env", path, folder=elsewhere, env_manager="uv", current=False)
    other = resolve(again, cache=tmp_path / "other-cache")
    assert (other.text, other.key) == (lock.text, lock.key)


def test_a_lock_is_kept_until_it_is_upgraded(
    folder: Path, cache: Path, make_wheel: MakeWheel, read: ReadProject
) -> None:
    make_wheel("alpha", "1.0")
    spec, stages = read("alpha"), list[str]()
    first = resolve(spec, cache=cache, on_progress=stages.append)
    make_wheel("alpha", "2.0")
    assert resolve(spec, cache=cache, on_progress=stages.append) == first
    assert stages == [f"resolving 1 requirements for python {platform.python_version()}"]
    newer = resolve(spec, cache=cache, upgrade=True)
    assert newer.version_of("alpha") == "2.0"
    assert newer.key != first.key
    assert resolve(spec, cache=cache) == newer  # uv is not needed for what is kept
    shutil.rmtree(folder / "wheels")
    assert resolve(spec, cache=cache) == newer


def test_a_changed_byte_in_a_kept_lock_is_noticed(cache: Path, make_wheel: MakeWheel, read: ReadProject) -> None:
    make_wheel("alpha", "1.0")
    spec = read("alpha")
    lock = resolve(spec, cache=cache)
    (stored,) = (path for path in (cache / "locks").iterdir() if not path.suffix)
    stored.write_bytes(stored.read_bytes().replace(b"alpha==1.0", b"alpha==1.1"))
    assert resolve(spec, cache=cache) == lock


def test_what_is_kept_is_private(cache: Path, make_wheel: MakeWheel, read: ReadProject) -> None:
    make_wheel("alpha", "1.0")
    resolve(read("alpha"), cache=cache)
    modes = {oct(path.stat().st_mode & 0o777) for path in (cache / "locks").iterdir()}
    assert modes == {"0o600"}
    assert oct((cache / "locks").stat().st_mode & 0o777) == "0o700"


def test_constraints_bound_and_pre_releases_count_when_asked(
    folder: Path, cache: Path, make_wheel: MakeWheel, read: ReadProject
) -> None:
    for version in ("1.0", "2.0", "3.0rc1"):
        make_wheel("alpha", version)
    (folder / "bound.txt").write_text("alpha<2")
    assert resolve(read("alpha"), cache=cache).version_of("alpha") == "2.0"
    assert resolve(read("alpha", "-c bound.txt"), cache=cache).version_of("alpha") == "1.0"
    assert resolve(read("alpha", "--pre"), cache=cache).version_of("alpha") == "3.0rc1"


def test_pip_s_configured_constraint_counts(
    tmp_path: Path, cache: Path, make_wheel: MakeWheel, read: ReadProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_wheel("alpha", "1.0")
    make_wheel("alpha", "2.0")
    bound = tmp_path / "bound.txt"
    bound.write_text("alpha<2")
    monkeypatch.setenv("PIP_CONSTRAINT", str(bound))
    assert resolve(read("alpha"), cache=cache).version_of("alpha") == "1.0"


def test_the_user_s_own_hashes_are_held_to(
    tmp_path: Path, cache: Path, make_wheel: MakeWheel, read: ReadProject
) -> None:
    wheel = make_wheel("alpha", "1.0")
    (pinned,) = resolve(read("alpha"), cache=cache).packages[0].hashes
    wheel.write_bytes(wheel.read_bytes() + b"\0")
    kept = resolve(read(f"alpha --hash={pinned}".replace(pinned, hash_of(wheel))), cache=tmp_path / "two")
    assert kept.packages[0].hashes == (hash_of(wheel),)
    with pytest.raises(EnvironmentUnavailable, match=r"python_env.yaml:4: alpha 1\.0: none of the hashes"):
        resolve(read(f"alpha --hash={pinned}"), cache=tmp_path / "three")


def hash_of(path: Path) -> str:
    import hashlib

    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def test_git_is_pinned_to_its_commit(tmp_path: Path, folder: Path, cache: Path, read: ReadProject) -> None:
    repository = tmp_path / "repository"
    repository.mkdir()
    (repository / "pyproject.toml").write_text(
        '[project]\nname = "gitted"\nversion = "1.0"\n[build-system]\nrequires = []\nbuild-backend = "none"\n'
    )
    git = ["git", "-C", str(repository), "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *command], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    lock = resolve(read(f"gitted @ git+{repository.as_uri()}"), cache=cache)
    assert lock.packages[0].url == f"git+{repository.as_uri()}@{commit}"
    text = f"dependencies:\n- python={lock.python_version}\n- pip:\n  - --no-index\n  - git+{repository.as_uri()}\n"
    (folder / "conda.yaml").write_text(text, encoding="utf-8")
    path = folder / "conda.yaml"
    spec = read_environment("conda_env", path, folder=folder, env_manager="uv", current=False)
    assert resolve(spec, cache=cache).packages == lock.packages


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (
            ["alpha>=2", "alpha<1.5"],
            "python_env.yaml:4, python_env.yaml:5: no versions fit together for alpha>=2 and alpha<1.5: because",
        ),
        (["alpha>9"], "python_env.yaml:4: no versions fit together: because only alpha==1.0 is available"),
        (
            ["alpha", "nowhere"],
            "python_env.yaml:5: no package named nowhere is on the package index; check its spelling",
        ),
    ],
)
def test_what_cannot_be_resolved_is_said_with_its_lines(
    cache: Path, make_wheel: MakeWheel, read: ReadProject, lines: list[str], expected: str
) -> None:
    make_wheel("alpha", "1.0")
    with pytest.raises(EnvironmentUnavailable) as caught:
        resolve(read(*lines), cache=cache)
    assert str(caught.value).startswith(expected)
    assert "\n" not in str(caught.value)
    assert not [path for path in (cache / "locks").iterdir() if path.suffix != ".lock"]


def test_a_source_distribution_that_cannot_be_built(folder: Path, cache: Path, read: ReadProject) -> None:
    spec = read("broken")
    files = {
        "PKG-INFO": "Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n",
        "pyproject.toml": "[build-system]\nrequires = []\nbuild-backend = 'backend'\nbackend-path = ['.']\n",
        "backend.py": "def build_wheel(*arguments):\n    raise SystemExit('no compiler\\nis here')\n",
    }
    with tarfile.open(folder / "wheels/broken-1.0.tar.gz", "w:gz") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(f"broken-1.0/{name}")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    with pytest.raises(EnvironmentUnavailable) as caught:
        resolve(spec, cache=cache)
    assert str(caught.value).startswith("python_env.yaml:4: Failed to build `broken==1.0`: ")
    assert "no compiler is here" in str(caught.value)
    assert caught.value.next_step == "take a version that has a wheel, or install what building it needs"


def test_an_index_that_cannot_be_reached(cache: Path, read: ReadProject) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    spec = read(f"--index-url http://canary:canary@127.0.0.1:{port}/simple", "alpha", offline=False)
    with pytest.raises(EnvironmentUnavailable) as caught:
        resolve(spec, cache=cache)
    assert str(caught.value) == (
        f"the package index cannot be reached: http://127.0.0.1:{port}/simple/alpha/: "
        "Connection refused (os error 111); check the network, and the index settings of pip or uv"
    )
    assert "canary" not in contents(cache)


def test_a_private_index_works_and_its_password_stays_out(
    cache: Path, make_wheel: MakeWheel, read: ReadProject, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.add(make_wheel("alpha", "1.0"))
    monkeypatch.setenv("PIP_INDEX_URL", index.url.replace("://", "://canary-user:wrong-canary@"))
    with pytest.raises(EnvironmentUnavailable, match="refuses us: no valid credentials") as caught:
        resolve(read("alpha", offline=False), cache=cache)
    assert "canary" not in str(caught.value)
    monkeypatch.setenv("PIP_INDEX_URL", index.private_url)
    lock = resolve(read("alpha", offline=False), cache=cache)
    assert lock.version_of("alpha") == "1.0"
    assert "canary" not in lock.text + repr(lock) + contents(cache)


def test_the_shell_s_environment_does_not_redirect_uv(
    tmp_path: Path, cache: Path, make_wheel: MakeWheel, read: ReadProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_wheel("alpha", "1.0")
    (tmp_path / "pyproject.toml").write_text("[tool.uv.pip]\nindex-url = 'http://127.0.0.1:1/'\nno-index = false\n[")
    monkeypatch.chdir(tmp_path)
    for name in (
        "VIRTUAL_ENV",
        "CONDA_PREFIX",
        "PYTHONHOME",
        "UV_PYTHON",
        "UV_PROJECT",
        "UV_WORKING_DIR",
        "UV_SYSTEM_PYTHON",
    ):
        monkeypatch.setenv(name, str(tmp_path / "nowhere"))
    monkeypatch.setenv("RUST_LOG", "trace")
    assert resolve(read("alpha"), cache=cache).version_of("alpha") == "1.0"


RESOLVE = """
import sys
from pathlib import Path
from mlflow_azure_backend.environment.resolving import resolve
from mlflow_azure_backend.environment.spec import read_environment
folder, cache = map(Path, sys.argv[1:])
spec = read_environment("python_env", folder / "python_env.yaml", folder=folder, env_manager="uv", current=False)
print(resolve(spec, cache=cache, on_progress=lambda stage: print(stage)).key)
"""


def test_processes_that_want_the_same_resolve_it_once(
    folder: Path, cache: Path, make_wheel: MakeWheel, read: ReadProject
) -> None:
    make_wheel("alpha", "1.0")
    read("alpha")
    command = [sys.executable, "-c", RESOLVE, str(folder), str(cache)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    outputs = [process.communicate(timeout=120)[0].splitlines() for process in started]
    assert len({lines[-1] for lines in outputs}) == 1
    assert sum(line.startswith("resolving") for lines in outputs for line in lines) == 1


def test_the_current_interpreter_is_described_as_it_is() -> None:
    lock = current_lock()
    found = {re.sub(r"[-_.]+", "-", one.name).lower(): one.version for one in importlib.metadata.distributions()}
    assert {package.name: package.version for package in lock.packages} == found
    assert (lock.kind, lock.python_version) == ("current", platform.python_version())
    assert f"\npytest=={pytest.__version__}\n" in lock.text
    assert lock.mlflow_version == importlib.metadata.version("mlflow")
    assert current_lock() == lock


@pytest.mark.parametrize(
    ("names", "expected"), [((), None), (("mlflow-skinny",), "2.0"), (("mlflow", "mlflow-skinny"), "1.0")]
)
def test_whether_the_job_can_track(
    cache: Path, make_wheel: MakeWheel, read: ReadProject, names: tuple[str, ...], expected: str | None
) -> None:
    make_wheel("mlflow", "1.0")
    make_wheel("mlflow_skinny", "2.0")
    make_wheel("alpha", "1.0")
    assert resolve(read("alpha", *names), cache=cache).mlflow_version == expected


@pytest.mark.parametrize(
    ("version", "wanted", "expected"),
    [
        ("3.11.7", None, True),
        ("3.11.7", "3", True),
        ("3.11.7", "3.11", True),
        ("3.11.7", "3.11.7", True),
        ("3.11.7", "3.11.*", True),
        ("3.11.7", ">=3.9,<3.12", True),
        ("3.13.0rc1", ">=3.9", True),
        ("3.11.7", "3.1", False),
        ("3.11.7", "3.11.4", False),
        ("3.11.7", "<3.11", False),
    ],
)
def test_which_python_will_do(version: str, wanted: str | None, expected: bool) -> None:
    assert satisfies(version, wanted) is expected


def test_a_python_that_is_not_here(cache: Path, read: ReadProject) -> None:
    with pytest.raises(EnvironmentUnavailable) as caught:
        resolve(read("alpha", python="3.99"), cache=cache)
    assert str(caught.value) == (
        'python_env.yaml:1: python 3.99 is not on this machine; run `uv python install "3.99"`, '
        f"or use --env-manager local for python {platform.python_version()}"
    )
    with pytest.raises(EnvironmentUnavailable, match=r"python_env\.yaml:1: 'snake' is not a Python version"):
        resolve(read("alpha", python="snake"), cache=cache)


def make_program(path: Path, script: str) -> None:
    path.parent.mkdir(parents=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_pyenv_s_pythons_are_found_and_its_shims_passed_over(tmp_path: Path) -> None:
    root = tmp_path / "pyenv"
    make_program(root / "shims/python3.98", "echo 'pyenv: python3.98: command not found' >&2; exit 127")
    for version in ("3.98.2", "3.98.10", "3.98.11"):
        make_program(root / "versions" / version / "bin/python", f"echo {version} cpython")
    (root / "versions/3.98.11/bin/python").write_text("broken")
    environ = {"PYENV_ROOT": str(root), "PATH": str(root / "shims")}
    found = find_python("3.98", environ=environ)
    assert (found.version, found.executable) == ("3.98.10", root / "versions/3.98.10/bin/python")
    with pytest.raises(EnvironmentUnavailable, match=r"python 3\.97 is not on this machine"):
        find_python("3.97", environ={**environ, "UV_PYTHON_INSTALL_DIR": str(tmp_path)})


UV_SAYS: list[tuple[str, str]] = [
    (
        """
  \u00d7 No solution found when resolving dependencies:
  ╰─▶ Because you require six>=2 and six<1.5, we can conclude that your
      requirements are unsatisfiable.
""",
        "r.txt:1: no versions fit together: because you require six>=2 and six<1.5",
    ),
    (
        """
  \u00d7 No solution found when resolving dependencies:
  ╰─▶ Because foo was not found in the package registry and you
      require foo, we can conclude that your requirements are unsatisfiable.
""",
        "no package named foo is on the package index; check its spelling, and the index settings of pip or uv with "
        "their credentials",
    ),
    (
        """
error: Failed to fetch: `http://u:canary@h/simple/six/`
  Caused by: HTTP status server error (503 Service Unavailable) for url (http://u:canary@h/simple/six/)
""",
        "the package index cannot be reached: http://***@h/simple/six/: HTTP status server error (503 Service "
        "Unavailable); check the network, and the index settings of pip or uv",
    ),
    (
        """
  \u00d7 Failed to download `six==1.17.0`
  ╰─▶ Hash mismatch for `six==1.17.0`

      Expected:
        sha256:00
""",
        "r.txt:1: six==1.17.0 is not the file that was locked (hash mismatch); "
        "resolve again with `mlflow-azure lock --upgrade`",
    ),
    (
        """
error: something
  cause: new
  that uv says

hint: do this.

hint: or that
""",
        "something: new that uv says (do this)",
    ),
    ("", "uv failed and did not say why"),
]


@pytest.mark.parametrize(("stderr", "expected"), UV_SAYS)
def test_what_uv_says_becomes_one_line(tmp_path: Path, stderr: str, expected: str) -> None:
    """The texts are uv 0.8.0's; those of the installed uv are met in the tests above."""
    assert str(uv_failure(stderr, origins={"six": (("r.txt:1", "six"),)}, folder=tmp_path)) == expected
