"""The workspace's MLflow server: started when somebody first asks it, and told of the jobs before it answers."""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp

from mlflow_azure_backend.emulator.problems import EmulatorProblem
from mlflow_azure_backend.emulator.processes import Process
from mlflow_azure_backend.emulator.settings import Settings

_READY = re.compile(rb"the tracking server listens on port (\d+)")
_VARIABLE = "MLFLOW_AZURE_EMULATOR_TRACKING"
_SERVER = "mlflow_azure_backend.emulator.mlflow_server"


class Reply(NamedTuple):
    """What MLflow answered."""

    status: int
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class JobRun(NamedTuple):
    """What a job's run has from its job."""

    experiment: str
    display_name: str
    status: str
    """A word of MLflow's ``RunStatus``."""
    start_time: int | None
    """Milliseconds since the epoch; None: not started."""
    end_time: int | None
    user: str
    tags: Mapping[str, str]
    """Those to set; what MLflow clients set beside them stays."""


class Tracking:
    """MLflow's server as one process that is started late.

    Args:
        settings: The emulator's.
        folder: Where its database and log are.
    """

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._settings = settings
        self._folder = folder
        self._secret = secrets.token_urlsafe(32)
        self._untold: dict[str, JobRun] = {}
        self._starting = asyncio.Lock()
        self._telling = asyncio.Lock()
        self._process: Process | None = None
        self._session: aiohttp.ClientSession | None = None

    def tell(self, name: str, run: JobRun) -> None:
        """Say what a job's run is by now; MLflow hears of it before it answers the next question.

        What was not told before the emulator ended is told again by whoever keeps the jobs.
        """
        self._untold[name] = run

    async def ask(self, method: str, path: str, *, query: str = "", body: bytes | None = None) -> Reply:
        """Put one request of MLflow's REST API to the server.

        Args:
            method: In capitals.
            path: Like ``/api/2.0/mlflow/runs/get``.
            query: As it was sent, without the question mark.
            body: JSON; None: no body.

        Raises:
            EmulatorProblem: The server cannot be started.
        """
        session = await self._running()
        await self._tell_changes(session)
        return await _request(session, method, f"{path}?{query}" if query else path, body)

    async def close(self) -> None:
        """End the process if there is one."""
        if self._session is not None:
            await self._session.close()
        if self._process is not None:
            await self._process.stop()

    async def _running(self) -> aiohttp.ClientSession:
        async with self._starting:
            if self._session is None:
                port = await self._start()
                self._session = aiohttp.ClientSession(
                    f"http://127.0.0.1:{port}",
                    headers={"Authorization": f"Bearer {self._secret}"},
                    timeout=aiohttp.ClientTimeout(total=None),
                )
            return self._session

    async def _start(self) -> int:
        settings = self._settings
        told = {
            "database": f"sqlite:///{self._folder / 'mlflow.db'}",
            "artifact_root": f"azureml://{settings.api_host}/mlflow/v2.0{settings.workspace}",
            "secret": self._secret,
        }
        unwanted = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_TRACKING_TOKEN", "MLFLOW_RUN_ID")
        env = {name: value for name, value in os.environ.items() if name not in unwanted}
        env |= {_VARIABLE: json.dumps(told), "MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONUTF8": "1"}
        log = self._folder / "mlflow.log"
        log.write_bytes(b"")
        argv = [sys.executable, "-W", "ignore", "-m", _SERVER]
        self._process = await Process.start(argv, cwd=self._folder, env=env, log=log)
        return int((await wait_for_line(self._process, log, _READY, "MLflow's server"))[1])

    async def _tell_changes(self, session: aiohttp.ClientSession) -> None:
        async with self._telling:
            untold, self._untold = self._untold, {}
            if untold:
                jobs = {name: run._asdict() for name, run in untold.items()}
                reply = await _request(session, "PUT", "/jobs", json.dumps(jobs).encode())
                if reply.status != 200:
                    raise EmulatorProblem(f"MLflow's server refused jobs: {reply.body.decode('utf-8', 'replace')}")


async def wait_for_line(process: Process, log: Path, wanted: re.Pattern[bytes], what: str) -> re.Match[bytes]:
    """Wait until a process has written what says that it is ready.

    Raises:
        EmulatorProblem: It ended instead.
    """
    ended = asyncio.ensure_future(process.ended())
    while (found := wanted.search(log.read_bytes())) is None:
        done, _ = await asyncio.wait([ended], timeout=0.05)
        if done:
            last = log.read_text("utf-8", "replace").strip().splitlines()[-1:] or ["it wrote nothing"]
            raise EmulatorProblem(f"{what} ended at once: {last[0]}; all that it wrote is in {log}")
    return found


async def _request(session: aiohttp.ClientSession, method: str, target: str, body: bytes | None) -> Reply:
    headers = {} if body is None else {"Content-Type": "application/json"}
    async with session.request(method, target, data=body, headers=headers) as response:
        return Reply(response.status, await response.read())
