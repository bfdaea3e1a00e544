"""P24: what the emulated workspace must hold: its start, its memory, requests for a job, and two hundred jobs."""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import aiohttp

from mlflow_azure_backend.emulator import EmulatorServer
from tests.benchmarks.bench import Bench
from tests.benchmarks.measure import FEW, PAIRS, Goal, Result
from tests.emulator.test_jobs import VERSION, Submitter

_IMAGE: Final = "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04"
_REQUESTS: Final = 5_000
_CLIENTS: Final = 16


def workspace(bench: Bench) -> Iterator[Result]:
    """The emulator's rows."""
    starts, memory = zip(*(_start(bench, number) for number in range(PAIRS + 1)), strict=True)
    yield Result("P24 start", "the emulator answers Resource Manager", "", Goal(1.5, "s"), starts[1:])
    yield Result("P24 memory", "the emulator's front, once it has answered", "", Goal(100, "MiB"), memory[1:])
    with EmulatorServer(outside=False) as emulator, Submitter(emulator) as client:
        client.submit("asked", command="true", environmentId=client.asset("environments", image=_IMAGE))
        client.wait("asked", "Completed")
        rates = [asyncio.run(_requests(emulator, client)) for _ in range(PAIRS + 1)][1:]
    yield Result(
        "P24 GET", "job GET, 16 clients that keep their connections", "", Goal(500, "1/s", at_least=True), rates
    )
    jobs = [_jobs() for _ in range(FEW)]
    yield Result("P24 jobs", "200 jobs, 50 at once, from the first PUT to the last end", "", Goal(120, "s"), jobs)


def _start(bench: Bench, number: int) -> tuple[float, float]:
    """Seconds to the first answer, and the front's MiB then."""
    started = time.perf_counter()
    with EmulatorServer(outside=False, state=bench.folder / f"workspace-{number}") as emulator:
        with Submitter(emulator) as client:
            client.get(client.arm, params=VERSION).raise_for_status()
        seconds = time.perf_counter() - started
        status = Path(f"/proc/{emulator.pid}/status").read_text("ascii")
    resident = re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
    return seconds, int(resident[1]) / 1024 if resident else float("nan")


async def _requests(emulator: EmulatorServer, client: Submitter) -> float:
    """Requests a second."""
    context = ssl.create_default_context(cafile=str(emulator.bundle))
    url = f"{client.arm}/jobs/asked?api-version={VERSION['api-version']}"
    headers = {"Authorization": str(client.headers["Authorization"])}

    async def ask() -> None:
        for _ in range(_REQUESTS // _CLIENTS):
            async with session.get(url, proxy=emulator.proxy, ssl=context) as answer:
                answer.raise_for_status()
                await answer.read()

    async with aiohttp.ClientSession(headers=headers) as session:
        started = time.perf_counter()
        await asyncio.gather(*(ask() for _ in range(_CLIENTS)))
        return _REQUESTS / (time.perf_counter() - started)


def _jobs() -> float:
    """Seconds that two hundred jobs take on fifty nodes."""
    cluster = {"vmSize": "Standard_DS1_v2", "scaleSettings": {"minNodeCount": 0, "maxNodeCount": 50}}
    body = {"location": "westeurope", "properties": {"computeType": "AmlCompute", "properties": cluster}}
    with EmulatorServer(outside=False) as emulator, Submitter(emulator) as client:
        client.put(f"{client.arm}/computes/many", params=VERSION, json=body).raise_for_status()
        common = {
            "environmentId": client.asset("environments", image=_IMAGE),
            "computeId": f"{client.workspace}/computes/many",
        }
        started = time.perf_counter()
        for number in range(200):
            client.submit(f"many-{number}", command="seq 1000", **common).raise_for_status()
        while True:
            told = client.get(f"{client.arm}/jobs", params=VERSION).json()["value"]
            if all(job["properties"]["status"] == "Completed" for job in told):
                return time.perf_counter() - started
            time.sleep(0.5)


CASES = {"P24": workspace}
