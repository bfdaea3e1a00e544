"""The emulator inside somebody's test: a process of its own that ends with the ``with`` block, or with us."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from mlflow_azure_backend.emulator.problems import EmulatorProblem

_CONTROL = "emulator.test"
_PATIENCE = 60.0
"""Seconds for the process to end by itself."""


class EmulatorServer:
    """One emulated workspace; a context manager.

    Args:
        state: Folder of its state, kept afterwards, so that a later one goes on there; None: a temporary one.
        port: Of its proxy on loopback; 0: any that is free.
        cache: Where Azurite is installed on first use; None: as ``default_cache`` says.
        **settings: What ``emulator/settings.py`` lists, such as ``queue_seconds`` or ``outside``.

    Attributes:
        port: Of the proxy, once started.
        pid: Of its process, once started.
        settings: All settings, once started.
        folder: The state folder, once started.
    """

    def __init__(
        self, *, state: Path | str | None = None, port: int = 0, cache: Path | str | None = None, **settings: Any
    ) -> None:
        self.port = port
        self.pid = 0
        self.settings: dict[str, Any] = settings
        self.folder = Path() if state is None else Path(state).absolute()
        self._temporary = state is None
        self._cache = default_cache() if cache is None else Path(cache).absolute()
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> EmulatorServer:
        """Start it; returns when the front answers.

        Raises:
            EmulatorProblem: It does not start; the line says why and what to do.
        """
        if self._temporary:
            self.folder = Path(tempfile.mkdtemp(prefix="mlflow-azure-emulator-"))
        argv = [sys.executable, "-m", __package__, "serve", "--state", str(self.folder), "--port", str(self.port)]
        argv += ["--cache", str(self._cache), "--settings", json.dumps(self.settings), "--leashed"]
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": "ignore"}
        with self._log() as errors:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=environment,
                start_new_session=True,
            )
        said = "" if self._process.stdout is None else self._process.stdout.readline()
        if not said:
            self._process.wait()
            problem = EmulatorProblem(self._last_line())
            self._end()
            raise problem
        told = json.loads(said)
        self.port, self.pid = told["port"], told["pid"]
        self.settings = json.loads((self.folder / "settings.json").read_text("utf-8"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it and all that it started; its state goes with it unless a folder was given."""
        self._end()

    @property
    def proxy(self) -> str:
        """Address of the proxy, for ``HTTPS_PROXY``."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def bundle(self) -> Path:
        """The authorities to trust, a PEM file."""
        return self.folder / "certificates" / "bundle.pem"

    @property
    def config_file(self) -> Path:
        """The workspace's ``config.json``."""
        return self.folder / "config.json"

    @property
    def tracking_uri(self) -> str:
        """The workspace's ``azureml://`` tracking URI."""
        s = self.settings
        scope = f"/subscriptions/{s['subscription_id']}/resourceGroups/{s['resource_group']}"
        workspace = f"{scope}/providers/Microsoft.MachineLearningServices/workspaces/{s['workspace_name']}"
        return f"azureml://{s['region']}.api.azureml.ms/mlflow/v1.0{workspace}"

    def environment(self, base: Mapping[str, str] | None = None) -> dict[str, str]:
        """The variables that lead clients here, and ``MLFLOW_TRACKING_URI`` unless ``base`` (None: empty) has it."""
        base = {} if base is None else base
        s = self.settings
        direct = ",".join(part for part in ("127.0.0.1,localhost,::1", base.get("NO_PROXY", "")) if part)
        variables = {
            "HTTPS_PROXY": self.proxy,
            "https_proxy": self.proxy,
            "NO_PROXY": direct,
            "no_proxy": direct,
            "REQUESTS_CA_BUNDLE": str(self.bundle),
            "SSL_CERT_FILE": str(self.bundle),
            "AZURE_TENANT_ID": s["tenant_id"],
            "AZURE_CLIENT_ID": s["client_id"],
            "AZURE_CLIENT_SECRET": s["client_secret"],
            "AZUREML_ARM_SUBSCRIPTION": s["subscription_id"],
            "AZUREML_ARM_RESOURCEGROUP": s["resource_group"],
            "AZUREML_ARM_WORKSPACE_NAME": s["workspace_name"],
        }
        if "CURL_CA_BUNDLE" in base:  # it would go before the others
            variables["CURL_CA_BUNDLE"] = str(self.bundle)
        if "MLFLOW_TRACKING_URI" not in base:
            variables["MLFLOW_TRACKING_URI"] = self.tracking_uri
        return {**base, **variables}

    def control(self, method: str, path: str, body: Any = None) -> Any:
        """Ask the emulator's own host; see docs/emulator.md.

        Raises:
            EmulatorProblem: It refused; the text is its own.
        """
        context = ssl.create_default_context(cafile=str(self.bundle))
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=context, timeout=_PATIENCE)
        connection.set_tunnel(_CONTROL, 443)
        with contextlib.closing(connection):
            connection.request(method, path, None if body is None else json.dumps(body))
            response = connection.getresponse()
            text = response.read()
        told: Any = json.loads(text) if text else None
        if response.status >= 400:
            raise EmulatorProblem(f"{method} {path}: {told['error']['message']}")
        return told

    def fault(self, kind: str, **what: Any) -> int:
        """Order a fault, with the fields of ``emulator/faults.py``; returns the number that it is taken back by."""
        return int(self.control("POST", "/faults", {"kind": kind, **what})["number"])

    def faults(self) -> list[dict[str, Any]]:
        """The faults that were ordered and not taken back; ``struck`` says how often each has struck."""
        ordered: list[dict[str, Any]] = self.control("GET", "/faults")["value"]
        return ordered

    def clear(self, number: int | None = None) -> None:
        """Take back a fault; None: all of them."""
        self.control("DELETE", "/faults" if number is None else f"/faults?number={number}")

    def exchanges(self) -> list[dict[str, Any]]:
        """The last requests and what was answered, the oldest first; see ``emulator/exchanges.py``."""
        kept: list[dict[str, Any]] = self.control("GET", "/exchanges")["value"]
        return kept

    def forget_exchanges(self, *, bodies: bool = False) -> None:
        """Forget the requests until now, and keep JSON bodies of the next ones or not."""
        self.control("DELETE", "/exchanges")
        self.control("PUT", "/exchanges", {"bodies": bodies})

    def wait(self) -> None:
        """Wait until the process ends by itself.

        Raises:
            EmulatorProblem: It did, which it does only when a part of it failed.
        """
        if self._process is not None:
            self._process.wait()
            raise EmulatorProblem(self._last_line())

    def problem(self) -> str | None:
        """Why the workspace is gone by itself, in one line; None: it is there."""
        if self._process is None:
            return None
        try:
            socket.create_connection(("127.0.0.1", self.port), _PATIENCE).close()
        except OSError:
            self._process.wait(_PATIENCE)  # it stops to listen before it ends
            return self._last_line()
        return None

    def _log(self) -> TextIO:
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            return (self.folder / "emulator.log").open("w")
        except OSError as error:
            why = error.strerror or type(error).__name__
            raise EmulatorProblem(f"{self.folder}: {why}; choose a folder that can be written with --state") from None

    def _last_line(self) -> str:
        lines = (self.folder / "emulator.log").read_text("utf-8").strip().splitlines() or ["it ended without a word"]
        return lines[-1].removeprefix("mlflow-azure emulator: ")

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            if process.stdin is not None:
                process.stdin.close()
            try:
                process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()
        if self._temporary:
            shutil.rmtree(self.folder, ignore_errors=True)


def default_cache() -> Path:
    """``$MLFLOW_AZURE_CACHE/emulator``, else below the user's cache folder."""
    told = os.environ.get("MLFLOW_AZURE_CACHE")
    if told:
        return Path(told).absolute() / "emulator"
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "mlflow-azure" / "emulator"
