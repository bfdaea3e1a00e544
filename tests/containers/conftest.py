"""A container job started in this process, an engine of the test's own, and a registry on loopback."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.entities import Run

from mlflow_azure_backend.submitted_run import AzureSubmittedRun

Launch = Callable[..., AzureSubmittedRun]


def shell(command: str, *parameters: str, image: str | None = None, docker: Mapping[str, Any] | None = None) -> str:
    """An MLproject whose ``main`` is one command; with an image, a docker project."""
    project: dict[str, Any] = {"name": "containers", "entry_points": {"main": {"command": command}}}
    if parameters:
        project["entry_points"]["main"]["parameters"] = {name: {"type": "path"} for name in parameters}
    if image is not None:
        project["docker_env"] = {"image": image, **(docker or {})}
    return json.dumps(project)


def docker_says(*arguments: str) -> str:
    """What the docker command prints."""
    return subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True).stdout.strip()


def containers_of(run_id: str) -> list[str]:
    """The containers of a run that the engine knows."""
    return docker_says("ps", "--all", "--quiet", "--filter", f"label=mlflow_azure.run_id={run_id}").split()


@pytest.fixture
def launch(store: str, base_image: str) -> Launch:
    """``mlflow.projects.run`` with our backend, in a container of the test image."""

    def run(folder: Path, config: Mapping[str, Any] | None = None, **options: Any) -> AzureSubmittedRun:
        backend_config = {"compute": "docker", "environment": {"image": base_image}, **(config or {})}
        submitted = mlflow.projects.run(
            str(folder), backend="azureml", backend_config=backend_config, experiment_name="contract", **options
        )
        assert isinstance(submitted, AzureSubmittedRun)
        return submitted

    return run


@pytest.fixture
def only_run(store: str) -> Callable[[], Run]:
    """The one run of the experiment."""

    def find() -> Run:
        client = mlflow.MlflowClient()
        (run,) = client.search_runs([client.get_experiment_by_name("contract").experiment_id])
        return run

    return find


class OwnEngine:
    """A docker engine that a test may stop, beside the one that the others use."""

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder, self.root = folder, root
        self.socket = folder / "docker.sock"
        self.process: subprocess.Popen[bytes] | None = None
        # Engines that share a network take each other's bridge away.
        self.network = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])

    def start(self) -> None:
        """Start it, and wait until it answers."""
        files = {"data-root": self.root, "exec-root": self.folder / "exec", "pidfile": self.folder / "pid"}
        enter = ["nsenter", f"--net=/proc/{self.network.pid}/ns/net"]
        command = [*enter, "dockerd", "--host", f"unix://{self.socket}", "--bridge", "none", "--iptables=false"]
        command += [f"--{name}={path}" for name, path in files.items()]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + 60
        while subprocess.run(["docker", "version"], env=self.environ, capture_output=True).returncode != 0:
            assert self.process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def stop(self) -> None:
        """Ask it to end, and wait until it has."""
        assert self.process is not None
        self.process.terminate()
        self.process.wait(60)

    @property
    def environ(self) -> dict[str, str]:
        """Of a client of it."""
        return {**os.environ, "DOCKER_HOST": f"unix://{self.socket}"}

    def load(self, image: str) -> None:
        """Give it an image of the other engine."""
        others = {name: value for name, value in os.environ.items() if name != "DOCKER_HOST"}
        with subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE, env=others) as saving:
            subprocess.run(["docker", "load", "--quiet"], stdin=saving.stdout, env=self.environ, check=True)


@pytest.fixture
def own_engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[OwnEngine]:
    """An engine of the test's own, on a small disk; ``DOCKER_HOST`` names it."""
    folder = Path(tempfile.mkdtemp(prefix="engine-"))  # a socket's path is short
    root = folder / "root"
    root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400m,mode=0711", "tmpfs", str(root)], check=True)
    engine = OwnEngine(folder, root)
    try:
        engine.start()
        monkeypatch.setenv("DOCKER_HOST", f"unix://{engine.socket}")
        yield engine
    finally:
        if engine.process is not None and engine.process.poll() is None:
            engine.stop()
        engine.network.kill()
        engine.network.wait()
        subprocess.run(["umount", "--recursive", "--lazy", str(root)], check=False)
        shutil.rmtree(folder, ignore_errors=True)


class Registry(ThreadingHTTPServer):
    """As much of a registry as ``docker pull`` asks of one (https://distribution.github.io/distribution/spec/api/)."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _RegistryHandler)
        self.refusal: int | None = None
        self.login: str | None = None
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, bytes] = {}
        self.asked: list[str] = []

    def name(self, repository: str) -> str:
        """What ``docker pull`` calls a repository of it."""
        return f"127.0.0.1:{self.server_port}/{repository}"

    def add(self, tag: str, files: Mapping[str, bytes], architecture: str = "amd64") -> str:
        """Hold an image with these files; its digest."""
        layer = io.BytesIO()
        with tarfile.open(fileobj=layer, mode="w") as tar:
            for name, content in files.items():
                entry = tarfile.TarInfo(name)
                entry.size, entry.mode = len(content), 0o755
                tar.addfile(entry, io.BytesIO(content))
        packed = gzip.compress(layer.getvalue(), mtime=0)
        config = {
            "architecture": architecture,
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer.getvalue())]},
        }
        kind = "application/vnd.docker."
        manifest = {
            "schemaVersion": 2,
            "mediaType": f"{kind}distribution.manifest.v2+json",
            "config": self._keep(json.dumps(config).encode(), f"{kind}container.image.v1+json"),
            "layers": [self._keep(packed, f"{kind}image.rootfs.diff.tar.gzip")],
        }
        content = json.dumps(manifest).encode()
        self.manifests[tag] = self.manifests[_digest(content)] = content
        return _digest(content)

    def _keep(self, content: bytes, kind: str) -> dict[str, Any]:
        self.blobs[_digest(content)] = content
        return {"mediaType": kind, "size": len(content), "digest": _digest(content)}


class _RegistryHandler(BaseHTTPRequestHandler):
    server: Registry

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""

    def do_GET(self) -> None:
        self._answer(with_content=True)

    def do_HEAD(self) -> None:
        self._answer(with_content=False)

    def _answer(self, *, with_content: bool) -> None:
        registry = self.server
        registry.asked.append(self.path)
        login = registry.login
        wanted = None if login is None else f"Basic {base64.b64encode(login.encode()).decode()}"
        if registry.refusal is not None:
            self._send(registry.refusal, b'{"errors": [{"code": "DENIED", "message": "requested access is denied"}]}')
        elif wanted is not None and self.headers.get("Authorization") != wanted:
            self._send(401, b'{"errors": [{"code": "UNAUTHORIZED", "message": "authentication required"}]}')
        elif self.path == "/v2/":
            self._send(200, b"{}")
        else:
            _, _, rest = self.path.rpartition("/manifests/")
            kind = "application/vnd.docker.distribution.manifest.v2+json"
            content = registry.manifests.get(rest) if "/manifests/" in self.path else None
            if content is None:
                kind, content = "application/octet-stream", registry.blobs.get(self.path.rpartition("/")[2])
            if content is None:
                self._send(404, b'{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}')
            else:
                self._send(200, content, kind, with_content=with_content)

    def _send(self, code: int, content: bytes, kind: str = "application/json", *, with_content: bool = True) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
        if kind.endswith("manifest.v2+json"):
            self.send_header("Docker-Content-Digest", _digest(content))
        if code == 401:
            self.send_header("WWW-Authenticate", 'Basic realm="stub"')
        self.end_headers()
        if with_content and self.command != "HEAD":
            self.wfile.write(content)


@pytest.fixture
def registry() -> Iterator[Registry]:
    """A registry of the test's own."""
    with Registry() as made:
        thread = threading.Thread(target=made.serve_forever, daemon=True)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
