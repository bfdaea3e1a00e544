"""A conda-forge of our own on loopback: Python repacked from the one that runs, a few of its packages, and what tests add.

``conda_forge`` maps every channel of conda.anaconda.org to it, by the mirror settings that rattler reads, so projects keep
the real channel names. Other folders take the fixtures by importing them::

    from tests.conda_channel import conda_forge, conda_server  # noqa: F401
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import http.server
import importlib.metadata
import io
import json
import platform
import re
import sys
import sysconfig
import tarfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final

import pytest
from conda_package_streaming.create import conda_builder
from rattler import Subdir
from rattler.index import index_fs

PLACEHOLDER: Final = "/placeholder_" + "p" * 200
"""What stands in packaged text for the prefix that they are installed to."""
PYTHON: Final = platform.python_version()
_LIBRARY: Final = f"lib/python{sys.version_info.major}.{sys.version_info.minor}"
_UNNEEDED: Final = frozenset(
    {
        "__pycache__",
        "ensurepip",
        "idlelib",
        "lib2to3",
        "site-packages",
        "dist-packages",
        "test",
        "tests",
        "tkinter",
        "turtledemo",
    }
)


@dataclass(frozen=True)
class Link:
    """A symbolic link as a file's content."""

    target: str


Content = str | bytes | Path | Link


@dataclass(frozen=True)
class Channel:
    """One channel's folder."""

    folder: Path

    def add(
        self,
        name: str,
        version: str,
        files: Mapping[str, Content] | None = None,
        *,
        depends: Iterable[str] = (),
        entry_points: Iterable[str] = (),
        noarch: str | None = "generic",
        build: str = "0",
        subdir: str | None = None,
        constrains: Iterable[str] = (),
    ) -> Path:
        """Package the files by their place in a prefix; text with ``PLACEHOLDER`` is marked to be rewritten.

        A path as a file's content stands for that file.

        Args:
            name: The package's name.
            version: Its version.
            files: None for a package that only has dependencies.
            depends: Match specifications.
            entry_points: ``command = module:function``, for ``noarch="python"``.
            noarch: ``python``, ``generic``, or None for this platform's folder.
            build: Build string.
            subdir: Another platform's folder.
            constrains: Match specifications that bound what may stand beside it.

        Returns:
            The package.
        """
        folder = self.folder / ("noarch" if noarch else subdir or str(Subdir.current()))
        folder.mkdir(parents=True, exist_ok=True)
        stem = f"{name}-{version}-{build}"
        index = {
            "name": name,
            "version": version,
            "build": build,
            "build_number": 0,
            "subdir": folder.name,
            "depends": list(depends),
            "constrains": list(constrains),
            "timestamp": 1_700_000_000_000,
            **({"noarch": noarch} if noarch else {"arch": None, "platform": None}),
        }
        paths: list[dict[str, Any]] = []
        with conda_builder(stem, folder, compression_level=3) as archive:
            for path, content in sorted((files or {}).items()):
                paths.append(_add(archive, path, content))
            info: dict[str, Any] = {"index": index, "paths": {"paths_version": 1, "paths": paths}}
            if noarch == "python":
                points = {"type": "python", "entry_points": list(entry_points)}
                info["link"] = {"noarch": points, "package_metadata_version": 1}
            for name_, document in info.items():
                _write(archive, f"info/{name_}.json", json.dumps(document).encode())
        return folder / f"{stem}.conda"

    def index(self) -> None:
        """Write the channel's repodata anew."""
        for subdir in {"noarch", str(Subdir.current())}:
            (self.folder / subdir).mkdir(parents=True, exist_ok=True)
        asyncio.run(index_fs(self.folder, write_zst=True, write_shards=False, force=True))


def _add(archive: tarfile.TarFile, path: str, content: Content) -> dict[str, Any]:
    if isinstance(content, Link):
        entry = tarfile.TarInfo(path)
        entry.type, entry.linkname = tarfile.SYMTYPE, content.target
        archive.addfile(entry)
        return {"_path": path, "path_type": "softlink"}
    data = content.encode() if isinstance(content, str) else content
    if isinstance(data, Path):
        data = _relocatable(data.read_bytes())
    _write(archive, path, data)
    facts = {"_path": path, "path_type": "hardlink", "size_in_bytes": len(data)}
    facts["sha256"] = hashlib.sha256(data).hexdigest()
    if PLACEHOLDER.encode() in data:
        facts |= {"prefix_placeholder": PLACEHOLDER, "file_mode": "text"}
    return facts


def _write(archive: tarfile.TarFile, path: str, data: bytes) -> None:
    entry = tarfile.TarInfo(path)
    entry.size, entry.mtime = len(data), 1_700_000_000
    entry.mode = 0o755 if path.startswith("bin/") or ".so" in path else 0o644
    archive.addfile(entry, io.BytesIO(data))


def _relocatable(data: bytes) -> bytes:
    """The search path of a Python that lies in a folder of its own, made relative; the rest of its place are zeros."""
    here = f"{sys.base_prefix}/lib\0".encode()
    there = b"$ORIGIN/../lib\0"
    return data.replace(here, there.ljust(len(here), b"\0")) if len(here) >= len(there) else data


def _python_files() -> dict[str, Content]:
    base = Path(sys.base_prefix)
    files: dict[str, Content] = {f"bin/{_LIBRARY[4:]}": Path(sys.executable).resolve()}
    library = sysconfig.get_config_var("INSTSONAME")
    if sysconfig.get_config_var("Py_ENABLE_SHARED"):
        files[f"lib/{library}"] = (Path(sysconfig.get_config_var("LIBDIR")) / library).resolve()
    for path in (base / _LIBRARY).rglob("*"):
        inside = path.relative_to(base)
        unneeded = not _UNNEEDED.isdisjoint(inside.parts) or any(part.startswith("config-") for part in inside.parts)
        if path.is_file() and not unneeded:
            files[inside.as_posix()] = path
    return files


def add_python(channel: Channel) -> None:
    """The interpreter that runs, without its tests, as conda's ``python``."""
    files = _python_files()
    for name in ("python", "python3"):
        files[f"bin/{name}"] = Link(_LIBRARY[4:])
    channel.add("python", PYTHON, files, depends=["pip"], noarch=None, build="0_cpython", constrains=["python_abi 3.*"])


def add_distribution(channel: Channel, name: str, *, noarch: bool, depends: Iterable[str] = ()) -> None:
    """A package of the running environment, repacked."""
    found = importlib.metadata.distribution(name)
    assert found.files is not None
    packed: dict[str, Content] = {}
    for file in found.files:
        path = PurePosixPath(file)
        if ".." not in path.parts and "__pycache__" not in path.parts and "tests" not in path.parts:
            packed[f"{'' if noarch else _LIBRARY + '/'}site-packages/{path}"] = Path(str(found.locate_file(file)))
    points = [f"{point.name} = {point.value}" for point in found.entry_points if point.group == "console_scripts"]
    wants = (*depends, "python" if noarch else f"python {'.'.join(PYTHON.split('.')[:2])}.*")
    conda_name = re.sub(r"[-_.]+", "-", name).lower()
    kind = "python" if noarch else None
    channel.add(conda_name, found.version, packed, depends=wants, entry_points=points if noarch else (), noarch=kind)


@dataclass
class CondaServer:
    """Channels on loopback, one in each folder below ``folder``.

    Attributes:
        folder: Holds the channels.
        url: The server's address; a channel's is ``url/NAME``.
        private: Names of channels that only ``user`` with ``password``, or a path with ``/t/token/``, may read.
        asked: The paths of all requests.
    """

    folder: Path
    url: str = ""
    private: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    user: str = "canary-user"
    password: str = "canary-password"  # noqa: S105 - what the tests look for where it must not be
    token: str = "canary-token"  # noqa: S105

    def channel(self, name: str) -> Channel:
        """A channel of this name; a new one is empty and not indexed."""
        return Channel(self.folder / name)

    def configuration(self) -> str:
        """What rattler's ``config.toml`` has to say to find the channels of conda.anaconda.org here."""
        return f'[mirrors]\n"https://conda.anaconda.org/" = ["{self.url}/"]\n'


def _handler(server: CondaServer) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.SimpleHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(server.folder))

        def send_head(self) -> Any:
            # Its answer 304 has no Last-Modified, without which rattler takes the cached file for damaged.
            del self.headers["If-Modified-Since"]
            server.asked.append(self.path)
            path, has_token = re.subn(f"^/t/{server.token}/", "/", self.path)
            expected = base64.b64encode(f"{server.user}:{server.password}".encode()).decode()
            knows = bool(has_token) or self.headers.get("Authorization") == f"Basic {expected}"
            if path.split("/")[1] in server.private and not knows:
                self.send_response(401)
                self.send_header("WWW-Authenticate", "Basic")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return None
            self.path = path
            return super().send_head()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            """Say nothing."""

    return Handler


class _Server(http.server.ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a client that was killed or had enough."""


def serve(folder: Path) -> Iterator[CondaServer]:
    """Serve the channels of a folder; for ``yield from`` in a fixture."""
    server = CondaServer(folder)
    with _Server(("127.0.0.1", 0), _handler(server)) as listening:
        listening.daemon_threads = True
        server.url = f"http://127.0.0.1:{listening.server_port}"
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            listening.shutdown()
            thread.join()


def build_conda_forge(folder: Path) -> None:
    """Python, pip, setuptools, numpy and pyyaml, in the versions that run these tests, as a channel in ``folder``."""
    channel = Channel(folder)
    add_python(channel)
    add_distribution(channel, "pip", noarch=True)
    add_distribution(channel, "setuptools", noarch=True)
    add_distribution(channel, "numpy", noarch=False)
    add_distribution(channel, "pyyaml", noarch=False)
    channel.index()


@pytest.fixture(scope="session")
def conda_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CondaServer]:
    """The channel conda-forge on loopback, made once."""
    folder = tmp_path_factory.mktemp("conda-channels")
    build_conda_forge(folder / "conda-forge")
    yield from serve(folder)


@pytest.fixture(scope="session")
def conda_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """rattler's cache, shared by all tests that do not spoil it."""
    return tmp_path_factory.mktemp("conda-cache")


@pytest.fixture
def conda_forge(
    conda_server: CondaServer, conda_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> CondaServer:
    """Let conda-forge lead there, for this process and its children."""
    home = tmp_path / "rattler-home"
    home.mkdir()
    (home / "config.toml").write_text(conda_server.configuration())
    monkeypatch.setenv("RATTLER_HOME", str(home))
    monkeypatch.setenv("RATTLER_CACHE_DIR", str(conda_cache))
    for name in ("RATTLER_AUTH_FILE", "NETRC", "CONDA_PREFIX"):
        monkeypatch.delenv(name, raising=False)
    conda_server.asked.clear()
    return conda_server
