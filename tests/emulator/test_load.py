"""Many jobs and many requests at once: nothing is lost. How long it takes is for `make bench` (P24)."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mlflow_azure_backend.emulator import EmulatorServer
from tests.emulator.test_jobs import VERSION, Submitter

JOBS = 200
AT_ONCE = 50
LINES = 200
IMAGE = "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04"


@pytest.fixture(scope="module")
def client() -> Iterator[Submitter]:
    with EmulatorServer(outside=False) as own, Submitter(own) as made:
        yield made


def statuses(client: Submitter) -> Counter[str]:
    """How many jobs have each status."""
    told = client.get(f"{client.arm}/jobs", params=VERSION).json()["value"]
    return Counter(job["properties"]["status"] for job in told)


@pytest.mark.timeout(900)
def test_two_hundred_jobs_queue_and_fifty_run_at_once_without_a_lost_line(client: Submitter, tmp_path: Path) -> None:
    cluster = {"vmSize": "Standard_DS1_v2", "scaleSettings": {"minNodeCount": 0, "maxNodeCount": AT_ONCE}}
    body = {"location": "westeurope", "properties": {"computeType": "AmlCompute", "properties": cluster}}
    assert client.put(f"{client.arm}/computes/many", params=VERSION, json=body).status_code in {200, 201}
    gate, said = tmp_path / "gate", tmp_path / "said"
    for fifo in (gate, said):
        os.mkfifo(fifo)
    common = {
        "environmentId": client.asset("environments", image=IMAGE),
        "computeId": f"{client.workspace}/computes/many",
        "experimentName": "many",
    }
    # A job says that it runs, waits until the gate is opened, writes, and says that it is done.
    command = f"""echo started; echo >> '{said}'; read opened < '{gate}'
i=1; while [ $i -le {LINES} ]; do echo $AZUREML_RUN_ID $i; i=$((i+1)); done; echo >> '{said}'"""
    names = [f"many-{number:03}" for number in range(JOBS)]
    # Opened to write as well, so that it does not wait for the first job.
    with os.fdopen(os.open(said, os.O_RDWR), "rb", buffering=0) as heard:
        with ThreadPoolExecutor(8) as pool:
            made = pool.map(lambda name: client.submit(name, command=command, **common).status_code, names)
            assert set(made) == {201}
        for _ in range(AT_ONCE):
            assert heard.read(1) == b"\n"
        while (told := statuses(client)) != {"Running": AT_ONCE, "Queued": JOBS - AT_ONCE}:
            assert (told["Failed"], told["Running"] <= AT_ONCE) == (0, True), told
        with gate.open("w") as opened:  # and it stays open for those that still wait
            opened.write("go\n" * JOBS)
            opened.flush()
            for _ in range(2 * JOBS - AT_ONCE):
                assert heard.read(1) == b"\n"
    for name in names:
        client.wait(name, "Completed")

    def log(name: str) -> str:
        address = client.get(f"{client.history}/runs/{name}/details").json()["logFiles"]["user_logs/std_log.txt"]
        return client.blob("GET", address).text

    with ThreadPoolExecutor(8) as pool:
        for name, text in zip(names, pool.map(log, names), strict=True):
            assert text.splitlines() == ["started", *(f"{name} {number}" for number in range(1, LINES + 1))], name


def test_a_job_is_shown_to_many_who_ask_at_once(client: Submitter) -> None:
    client.submit("shown", command="true", environmentId=client.asset("environments", image=IMAGE))
    client.wait("shown", "Completed")
    token = {"Authorization": client.headers["Authorization"]}
    url = f"{client.arm}/jobs/shown?api-version={VERSION['api-version']}"

    def ask(_: int) -> set[tuple[int, str]]:
        seen = set()
        for _ in range(50):
            answer = client.get(url, headers=token)
            seen.add((answer.status_code, answer.json()["properties"]["status"]))
        return seen

    with ThreadPoolExecutor(16) as pool:
        assert set().union(*pool.map(ask, range(16))) == {(200, "Completed")}
