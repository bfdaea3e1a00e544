"""What really runs of a job: its command, in an environment made from its conda file, as a process of this machine.

Only what can be made faithfully is: a conda file that asks for Python and pip packages. Other conda packages, images
alone, several nodes and curated environments are refused in one line; nothing runs in the emulator's own Python.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import yaml

from mlflow_azure_backend.emulator.experiments import experiment_id
from mlflow_azure_backend.emulator.processes import CannotStart, Process
from mlflow_azure_backend.emulator.routing import AUDIENCE_RUN
from mlflow_azure_backend.emulator.storage import ARTIFACTS

if TYPE_CHECKING:
    from mlflow_azure_backend.emulator.jobs import Job
    from mlflow_azure_backend.emulator.world import World

LOG = "user_logs/std_log.txt"
_ASSET = re.compile(r".*/(?P<kind>codes|environments)/(?P<name>[^/]+)/versions/(?P<version>[^/]+)$", re.IGNORECASE)
_DATA = re.compile(r"azureml://.*datastores/(?P<store>[^/]+)/paths/(?P<path>.*)$")
_DURATION = re.compile(r"P(?:(?P<days>\d+)D)?(?:T(?:(?P<hours>\d+)H)?(?:(?P<minutes>\d+)M)?(?:(?P<seconds>\d+)S)?)?$")
_PYTHON = re.compile(r"python\s*(=|==|>=|~=)?\s*(?P<version>\d+\.\d+)?[\d.*]*$")


class Refused(Exception):
    """The job cannot be carried out; the text says what is wanted instead."""


class TimedOut(Exception):
    """The job has had the time that its limits allow."""


@dataclass
class Execution:
    """One job on its way from Starting to its end."""

    world: World
    job: Job

    @property
    def folder(self) -> Path:
        """Where the job's node keeps everything."""
        return self.world.folder / "nodes" / hashlib.sha256(self.job.name.encode()).hexdigest()[:16]

    @property
    def artifacts(self) -> str:
        """What the names of the job's blobs start with."""
        return f"ExperimentRun/dcid.{self.job.name}/"

    async def run(self) -> None:
        """Carry the job out; whatever goes wrong becomes the job's end, not the emulator's."""
        jobs, name = self.world.jobs, self.job.name
        try:
            await self._run()
        except Refused as error:
            jobs.move(name, "Failed", {"code": "UserError", "message": str(error)})
        except TimedOut:
            # "When this limit is reached, the system cancels the job": the reference of command jobs, `limits.timeout`.
            jobs.move(name, "CancelRequested")
            jobs.move(name, "Canceled")
        except asyncio.CancelledError:
            if jobs.move(name, "Canceled"):
                return
            raise
        except Exception as error:  # a bug of ours must not leave a job running for ever
            jobs.move(name, "Failed", {"code": "SystemError", "message": f"{type(error).__name__}: {error}"})
            raise
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    async def _run(self) -> None:
        jobs, name, settings = self.world.jobs, self.job.name, self.world.settings
        jobs.move(name, "Preparing")
        wd = self.folder / "wd"
        wd.mkdir(parents=True)
        await self._fetch_code(wd)
        prefix = await self._environment()
        jobs.move(name, "Queued")
        await asyncio.sleep(settings.queue_seconds)
        jobs.move(name, "Provisioning")
        await asyncio.sleep(settings.provisioning_seconds)
        command = await self._command()
        jobs.move(name, "Running")
        code = await self._execute(command, wd, prefix)
        jobs.move(name, "Finalizing")
        await self._collect(wd)
        if code == 0:
            jobs.move(name, "Completed")
        else:
            message = f"Execution failed. User process exited with status code {code}. Please check log file '{LOG}' "
            message += "for error details."
            jobs.move(name, "Failed", {"code": "UserError", "message": message})

    async def _fetch_code(self, folder: Path) -> None:
        identity = self.job.properties.get("codeId")
        if identity:
            uri = self._asset(identity, "codes")["properties"]["codeUri"]
            container, _, prefix = uri.partition(".blob.core.windows.net")[2].partition("/")[2].partition("/")
            await self._download(container, prefix.strip("/"), folder)

    async def _download(self, container: str, prefix: str, folder: Path) -> None:
        storage = self.world.storage
        base = f"{prefix.rstrip('/')}/" if prefix else ""
        async for name, _ in storage.names(container, base):
            relative = PurePosixPath(name.removeprefix(base))
            if relative.is_absolute() or ".." in relative.parts:
                raise Refused(f"{name}: a blob's name may not lead out of its folder")
            data = await storage.get(container, name)
            target = folder / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data or b"")

    def _asset(self, identity: str, kind: str) -> dict[str, Any]:
        found = _ASSET.match(identity)
        asset = None if found is None else self.world.state.get(kind, f"{found['name']}/{found['version']}")
        if asset is None:
            raise Refused(f"{identity}: there is no such asset in this workspace; register it, or give its definition")
        return dict(asset)

    async def _environment(self) -> Path:
        properties = self._asset(self.job.properties["environmentId"], "environments")["properties"]
        if properties.get("build"):
            raise Refused("a Dockerfile needs a container engine, which the emulator does not use; give a conda file")
        if not properties.get("condaFile"):
            raise Refused("an image alone needs a container engine, which the emulator does not use; give a conda file")
        python, packages = _wanted(properties["condaFile"])
        await asyncio.sleep(self.world.settings.image_build_seconds)
        key = hashlib.sha256(repr((python, packages)).encode()).hexdigest()[:16]
        prefix = self.world.folder / "environments" / key
        async with self.world.building.setdefault(key, asyncio.Lock()):
            if not (prefix / "built").exists():
                await asyncio.to_thread(_build, prefix, python, packages)
        return prefix

    async def _command(self) -> str:
        """The command with its inputs and outputs in place."""
        values: dict[str, str] = {}
        for name, asked in (self.job.properties.get("inputs") or {}).items():
            values[f"inputs.{name}"] = await self._input(name, asked)
        for name in self._named_outputs():
            place = self.folder / "outputs" / name
            place.mkdir(parents=True)
            values[f"outputs.{name}"] = str(place)

        def replace(match: re.Match[str]) -> str:
            if match[1] not in values:
                raise Refused(f"{match[0]}: the job has no such input or output")
            return values[match[1]]

        return re.sub(r"\$\{\{\s*([\w.]+)\s*\}\}", replace, self.job.properties["command"])

    async def _input(self, name: str, asked: Mapping[str, Any]) -> str:
        if asked["jobInputType"] == "literal":
            return str(asked["value"])
        found = _DATA.match(asked["uri"])
        if found is None or found["store"] != "workspaceblobstore":
            raise Refused(
                f"input {name}: {asked['uri']} is not in workspaceblobstore, the one place that inputs are read from"
            )
        path, place = found["path"].strip("/"), self.folder / "inputs" / name
        container = self.world.storage.blobstore
        if asked["jobInputType"].endswith("_file"):
            data = await self.world.storage.get(container, path)
            if data is None:
                raise Refused(f"input {name}: there is no {asked['uri']}")
            place.mkdir(parents=True)
            (place / PurePosixPath(path).name).write_bytes(data)
            return str(place / PurePosixPath(path).name)
        place.mkdir(parents=True)
        await self._download(container, path, place)
        return str(place)

    def _named_outputs(self) -> list[str]:
        return [name for name in self.job.properties["outputs"] if name != "default"]

    async def _execute(self, command: str, wd: Path, prefix: Path) -> int:
        log, timeout = self.folder / "std_log.txt", self._timeout()
        log.write_bytes(b"")
        try:
            process = await Process.start(["/bin/bash", "-c", command], cwd=wd, env=self._variables(prefix), log=log)
        except CannotStart as error:
            raise Refused(f"the command cannot be started: {error}") from None
        ended = asyncio.Event()
        following = asyncio.ensure_future(self._follow(log, ended))
        try:
            return await asyncio.wait_for(process.ended(), timeout)
        except asyncio.TimeoutError:
            await process.stop()
            raise TimedOut from None
        except asyncio.CancelledError:
            await process.stop()
            raise
        finally:
            ended.set()
            await following

    def _timeout(self) -> float | None:
        """How long the command may run, seconds; None: for ever."""
        asked = (self.job.properties.get("limits") or {}).get("timeout")
        if asked is None:
            return None
        found = _DURATION.match(asked)
        if found is None:
            raise Refused(f"limits.timeout: {asked} is no duration of days, hours, minutes and seconds, like PT1H30M")
        return timedelta(**{unit: int(number) for unit, number in found.groupdict("0").items()}).total_seconds()

    def _variables(self, prefix: Path) -> dict[str, str]:
        world, job = self.world, self.job
        settings, bundle = world.settings, str(world.folder / "certificates" / "bundle.pem")
        lifetime = timedelta(seconds=settings.run_token_lifetime)
        token, expires = world.tokens.issue(AUDIENCE_RUN, lifetime, run_id=job.name)
        experiment = str(experiment_id(job.experiment))
        proxy = f"http://127.0.0.1:{world.port}"
        kept = {name: value for name, value in os.environ.items() if name in {"LANG", "HOME", "TZ"}}
        return {
            **kept,
            "PATH": f"{prefix / 'bin'}:/usr/local/bin:/usr/bin:/bin",
            "HTTPS_PROXY": proxy,
            "https_proxy": proxy,
            "NO_PROXY": "127.0.0.1,localhost",
            "REQUESTS_CA_BUNDLE": bundle,
            "SSL_CERT_FILE": bundle,
            "MLFLOW_TRACKING_URI": settings.tracking_uri,
            "MLFLOW_TRACKING_TOKEN": token,
            "MLFLOW_RUN_ID": job.name,
            "MLFLOW_EXPERIMENT_ID": experiment,
            "MLFLOW_EXPERIMENT_NAME": job.experiment,
            "AZUREML_RUN_ID": job.name,
            "AZUREML_RUN_TOKEN": token,
            "AZUREML_RUN_TOKEN_EXPIRY": str(expires),
            "AZUREML_ARM_SUBSCRIPTION": settings.subscription_id,
            "AZUREML_ARM_RESOURCEGROUP": settings.resource_group,
            "AZUREML_ARM_WORKSPACE_NAME": settings.workspace_name,
            "AZUREML_ARM_PROJECT_NAME": job.experiment,
            "AZUREML_EXPERIMENT_ID": experiment,
            "AZUREML_SERVICE_ENDPOINT": f"https://{settings.api_host}",
            **{f"AZURE_ML_OUTPUT_{name}": str(self.folder / "outputs" / name) for name in self._named_outputs()},
            **(job.properties.get("environmentVariables") or {}),
        }

    async def _follow(self, log: Path, ended: asyncio.Event) -> None:
        """Bring the log to its blob while it grows, and all of it once the command has ended."""
        storage, blob = self.world.storage, self.artifacts + LOG
        await storage.append(ARTIFACTS, blob, b"", create=True)
        with log.open("rb") as file:
            last = False
            while not last:
                last = ended.is_set()
                if data := file.read():
                    await storage.append(ARTIFACTS, blob, data, create=False)
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(ended.wait(), 0.2)

    async def _collect(self, wd: Path) -> None:
        storage = self.world.storage
        for part in ("outputs", "logs"):
            for file in sorted((wd / part).rglob("*")):
                if file.is_file():
                    await storage.put(ARTIFACTS, self.artifacts + file.relative_to(wd).as_posix(), file.read_bytes())
        for name in self._named_outputs():
            place = self.folder / "outputs" / name
            for file in sorted(place.rglob("*")):
                if file.is_file():
                    relative = file.relative_to(place).as_posix()
                    await storage.put(
                        storage.blobstore, f"azureml/{self.job.name}/{name}/{relative}", file.read_bytes()
                    )


def _wanted(conda_file: str) -> tuple[str | None, list[str]]:
    """Python's version (None: any) and the pip packages of a conda file.

    Raises:
        Refused: It wants something else.
    """
    try:
        told = yaml.safe_load(conda_file)
    except yaml.YAMLError as error:
        raise Refused(f"the environment's conda file is no YAML: {error}") from None
    python: str | None = None
    packages: list[str] = []
    for one in (told or {}).get("dependencies") or [] if isinstance(told, dict) else []:
        if isinstance(one, dict):
            packages += [str(package) for package in one.get("pip") or []]
        elif found := _PYTHON.match(str(one)):
            python = found["version"]
        elif not re.match(r"pip\b", str(one)):
            raise Refused(f"conda package {one}: the emulator makes environments of Python and pip packages only")
    return python, packages


def _build(prefix: Path, python: str | None, packages: list[str]) -> None:
    shutil.rmtree(prefix, ignore_errors=True)
    uv = shutil.which("uv") or _uv()
    wanted = ["--python", python] if python else []
    steps = [[uv, "venv", "--quiet", *wanted, str(prefix)]]
    if packages:
        (prefix.parent / f"{prefix.name}.txt").parent.mkdir(parents=True, exist_ok=True)
        requirements = prefix.parent / f"{prefix.name}.txt"
        requirements.write_text("\n".join(packages) + "\n")
        steps.append([uv, "pip", "install", "--quiet", "--python", str(prefix), "--requirement", str(requirements)])
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise Refused(f"the environment cannot be built: {last.strip()}")
    (prefix / "built").touch()


def _uv() -> str:
    from uv import find_uv_bin

    return str(find_uv_bin())
