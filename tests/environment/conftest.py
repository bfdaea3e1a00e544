"""Wheels made here, a project to ask for them, and a machine whose own pip and uv settings do not count."""

from __future__ import annotations

import base64
import functools
import hashlib
import http.server
import os
import shutil
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mlflow_azure_backend.environment.spec import EnvironmentSpec, read_environment
from tests.conda_channel import PLACEHOLDER, Channel, CondaServer, conda_cache, conda_forge, conda_server

__all__ = ["conda_cache", "conda_forge", "conda_server"]
MakeWheel = Callable[..., Path]
ReadProject = Callable[..., EnvironmentSpec]


@pytest.fixture(scope="session")
def uv_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("uv-cache")


@pytest.fixture(autouse=True)
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, uv_cache: Path) -> None:
    """Without pip's and uv's settings, unless the test is about the real package index."""
    if request.node.get_closest_marker("package_index"):
        return
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "no-config"))
    monkeypatch.setenv("XDG_CONFIG_DIRS", str(tmp_path / "no-config"))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "no-pyenv"))
    monkeypatch.setenv("UV_CACHE_DIR", str(uv_cache))
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project's folder, with a name that breaks careless quoting."""
    made = tmp_path / "my 'project' \"é\"\nx"
    made.mkdir()
    return made


@pytest.fixture
def make_wheel(folder: Path) -> MakeWheel:
    """Write ``wheels/NAME-VERSION-py3-none-any.whl`` with a module of that name; the same bytes for the same call."""

    def make(name: str, version: str, *, requires: tuple[str, ...] = (), into: Path = folder / "wheels") -> Path:
        info = f"{name}-{version}.dist-info"
        needs = "".join(f"Requires-Dist: {need}\n" for need in requires)
        files = {
            f"{name}.py": f"VERSION = '{version}'\ndef main():\n    print('{name}', VERSION)\n",
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
            f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{info}/entry_points.txt": f"[console_scripts]\n{name}-say = {name}:main\n",
        }
        digests = {
            path: base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            for path, text in files.items()
        }
        record = "".join(f"{path},sha256={digest},{len(files[path])}\n" for path, digest in digests.items())
        into.mkdir(exist_ok=True)
        made = into / f"{name}-{version}-py3-none-any.whl"
        with zipfile.ZipFile(made, "w") as archive:
            for path, text in {**files, f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}.items():
                archive.writestr(zipfile.ZipInfo(path), text)
        return made

    return make


@pytest.fixture
def read(folder: Path, make_wheel: MakeWheel) -> ReadProject:
    """Read a project that asks for the given requirement lines and may look into ``wheels`` only."""

    def read_lines(*lines: str, python: str | None = None, offline: bool = True) -> EnvironmentSpec:
        (folder / "wheels").mkdir(exist_ok=True)
        text = "" if python is None else f'python: "{python}"\n'
        looked = ["--no-index", "--find-links wheels"] if offline else []
        text += "dependencies:\n" + "".join(f"  - {line}\n" for line in (*looked, *lines))
        (folder / "python_env.yaml").write_text(text, encoding="utf-8")
        path = folder / "python_env.yaml"
        return read_environment("python_env", path, folder=folder, env_manager="uv", current=False)

    return read_lines


@pytest.fixture
def read_conda(folder: Path, conda_forge: CondaServer) -> ReadProject:
    """Read a project whose conda.yaml asks for the given lines, ``pip`` for further ones, from ``wheels`` only."""

    def read_lines(
        *lines: str, pip: tuple[str, ...] = (), head: str = "channels: [conda-forge]", solver: str | None = None
    ) -> EnvironmentSpec:
        wanted = "".join(f"  - {line}\n" for line in lines)
        if pip:
            (folder / "wheels").mkdir(exist_ok=True)
            looked = ("--no-index", "--find-links wheels")
            wanted += "  - pip:\n" + "".join(f"    - {line}\n" for line in (*looked, *pip))
        (folder / "conda.yaml").write_text(f"{head}\ndependencies:\n{wanted}", encoding="utf-8")
        path = folder / "conda.yaml"
        return read_environment("conda_env", path, folder=folder, env_manager=None, current=False, solver=solver)

    return read_lines


CONDA = """#!{python}
# As much of conda as conda-lock asks for: solve, create a prefix from an explicit list, run a command in it.
import argparse, asyncio, json, os, re, subprocess, sys
from pathlib import Path
import rattler, rattler.exceptions
with Path(__file__).with_name("asked").open("a") as asked:
    asked.write(" ".join(sys.argv[1:]) + "\\n")
parser = argparse.ArgumentParser()
parser.add_argument("command", choices=["create", "run"])
for option in ("--prefix", "--file"):
    parser.add_argument(option)
for option in ("--quiet", "--yes", "--dry-run", "--json", "--override-channels"):
    parser.add_argument(option, action="store_true")
parser.add_argument("--channel", action="append")
asked, rest = parser.parse_known_args()
client = rattler.Client.from_config(rattler.Config.load_from_default_locations("rattler"))
gateway = rattler.Gateway(client=client)
async def solve():
    # That conda-lock's last channel holds the virtual packages is all that is known here of this machine.
    platforms = [rattler.Subdir.current(), rattler.Subdir("noarch")]
    try:
        records = await rattler.solve([rattler.Channel(one) for one in asked.channel], rest, gateway=gateway, platforms=platforms)
    except rattler.exceptions.SolverError as error:
        return dict(message=str(error))
    packages = [
        dict(name=one.name.normalized, version=str(one.version), url=one.url, depends=one.depends,
             md5=one.md5 and one.md5.hex(), sha256=one.sha256 and one.sha256.hex())
        for one in records
    ]
    return dict(actions=dict(FETCH=packages, LINK=packages))
async def create():
    urls = re.findall(r"^(http[^#]+)#", open(asked.file).read(), re.M)
    parts = [url.rsplit("/", 2) for url in urls]
    specs = ["{{}} =={{}} {{}}".format(*name.removesuffix(".conda").rsplit("-", 2)) for _, _, name in parts]
    found = await gateway.query(
        [rattler.Channel(one) for one in sorted({{channel for channel, _, _ in parts}})],
        [rattler.Subdir(one) for one in sorted({{subdir for _, subdir, _ in parts}})],
        specs, recursive=False)
    records = [record for records in found for record in records]
    assert sorted(record.url for record in records) == sorted(urls)
    await rattler.install(records, asked.prefix, client=client, show_progress=False)
if asked.command == "run":
    sys.exit(subprocess.call([f"{{asked.prefix}}/bin/python", "-m", *rest]))
answer = asyncio.run(solve() if asked.dry_run else create()) or dict()
print(json.dumps(answer), flush=True)
os._exit("message" in answer)  # rattler's threads may bring down an interpreter that ends (0.28: SIGSEGV)
"""
"""A conda for those who have none."""


@pytest.fixture
def conda(tmp_path: Path) -> Path:
    """A program that does as much of conda's work as is asked of it; ``asked`` beside it has its command lines."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin/conda"
    program.write_text(CONDA.format(python=sys.executable))
    program.chmod(0o755)
    return program


@pytest.fixture(scope="session")
def lab(conda_server: CondaServer) -> Channel:
    """A channel of small packages: ``alpha`` needs ``beta`` below 2, which says hello and prefers not to be moved."""
    channel = conda_server.channel("lab")
    channel.add("alpha", "1.0", {"share/alpha.txt": "alpha 1.0\n"}, depends=["beta <2"])
    for version in ("1.0", "2.0"):
        files = {"bin/beta-say": f"#!/bin/sh\necho beta {version} in {PLACEHOLDER}\n", "share/beta": "b" * 1000}
        channel.add("beta", version, files)
    channel.add(
        "scripted",
        "1.0",
        {
            "etc/conda/activate.d/a.sh": 'export SCRIPTED="it\'s $CONDA_PREFIX"\nexport PATH="/scripted:$PATH"\necho noise\n',
            "etc/conda/activate.d/b.sh": "false\n",
            "bin/.scripted-post-link.sh": "touch $PREFIX/was-run\n",
        },
    )
    channel.add("on-gpu", "1.0", {"share/gpu": "gpu\n"}, depends=["__cuda >=12"])
    channel.index()
    return channel


@dataclass
class Index:
    """A package index on loopback for whoever knows the password.

    ``asked`` is set when a wheel is first asked for; it is given only once ``answer`` is set. After ``stop`` nobody is
    there to be asked.
    """

    folder: Path
    url: str
    asked: threading.Event
    answer: threading.Event
    stop: Callable[[], None]
    user: str = "canary-user"
    password: str = "canary-password"  # noqa: S105 - what the tests look for where it must not be

    @property
    def private_url(self) -> str:
        return self.url.replace("://", f"://{self.user}:{self.password}@")

    def add(self, wheel: Path) -> None:
        name = wheel.name.partition("-")[0]
        page = self.folder / "simple" / name / "index.html"
        page.parent.mkdir(parents=True)
        shutil.copy(wheel, page.parent)
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        page.write_text(f'<a href="{wheel.name}#sha256={digest}">{wheel.name}</a>', encoding="utf-8")


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    folder = tmp_path / "index"
    folder.mkdir()
    asked, answer = threading.Event(), threading.Event()
    answer.set()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            expected = base64.b64encode(f"{made.user}:{made.password}".encode()).decode()
            if self.headers.get("Authorization") != f"Basic {expected}":
                self.send_response(401)
                self.send_header("WWW-Authenticate", "Basic")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if self.path.endswith(".whl"):
                asked.set()
                answer.wait(60)
            super().do_GET()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)

        def stop() -> None:
            answer.set()
            server.shutdown()
            thread.join()
            server.server_close()

        made = Index(folder, f"http://127.0.0.1:{server.server_port}/simple", asked, answer, stop)
        thread.start()
        yield made
        stop()


def flip(file: Path) -> bytes:
    """Change one byte without changing size or time; returns the file as it was."""
    before, times = file.read_bytes(), file.stat()
    content = bytearray(before)
    content[len(content) // 2] ^= 1
    file.chmod(0o644)
    file.write_bytes(content)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    return before


@pytest.fixture
def own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Caches of rattler's and uv's that a test may spoil."""
    monkeypatch.setenv("RATTLER_CACHE_DIR", str(tmp_path / "rattler"))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    return tmp_path
