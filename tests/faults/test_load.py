"""Rows 27 to 29, the load of 64 runs in one process, and the soak."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.checker import check, check_nothing_left, check_private
from tests.faults.test_points import POINTS, SUPERVISOR_POINTS
from tests.faults.world import World, until

MEGABYTES = 200
FLOOD = f"""
piece = bytes(range(256)) * 256
import time
begun = time.monotonic()
for _ in range({MEGABYTES} * 16): write(1, piece)
write(side, b'%f' % (time.monotonic() - begun))
"""
BYTES = {
    "binary": "say(bytes(range(256)) * 300)",
    "NUL and cut UTF-8": "say(b'\\x00\\x00\\xc3'); say(b'\\xbc \\xe2\\x82'); say(b'\\xff\\xfe')",
    "carriage returns and ANSI": "say(b''.join(b'\\r%3d%% \\x1b[31m#\\x1b[0m' % n for n in range(101)))",
    "odd line ends": "say('a\\u2028b\\u2029c\\x85d\\x0be\\x0cf\\r\\ng\\n\\r'.encode())",
    "one line of 8 MB": "say(b'x' * (8 << 20))",
    "nothing": "",
}
P_FAULT = 0.05
SUBMISSIONS = int(os.environ.get("MLFLOW_AZURE_SOAK", "30"))


@pytest.mark.parametrize("kind", BYTES)
def test_logs_are_byte_exact(world: World, kind: str) -> None:
    world.write_project(BYTES[kind])
    client = world.run()
    assert client.wait() == 0
    expected = world.side.read_bytes() if world.side.exists() else b""
    assert client.out == expected
    check(world, status="FINISHED", says=("finished",))


def test_a_flood_is_kept_in_flat_memory(world: World) -> None:
    """A gigabyte a minute is 17 MB a second; this is as fast as the child can write."""
    world.write_project(FLOOD)
    client = world.run()
    until(lambda: world.starts() == 1)
    supervisor, peak, first = world.supervisor(), 0, memory(client.pid)
    while Path(f"/proc/{supervisor}").exists() and client.pid:
        peak = max(peak, memory(client.pid))
        if not world.side.exists() or world.side.stat().st_size == 0:
            time.sleep(0.02)  # a sampling period
        else:
            break
    assert client.wait() == 0
    expected = hashlib.sha256(bytes(range(256)) * 256 * (MEGABYTES * 16)).digest()
    logs = [world.run_folders()[0] / "std_log.txt", *world.store.rglob("std_log.txt")]
    for log in logs:
        assert hashlib.sha256(log.read_bytes()).digest() == expected
    assert len(logs) == 2
    assert hashlib.sha256(client.out).digest() == expected
    assert peak - first < 32 * 1024
    check(world, status="FINISHED", says=("finished",), logs_apart=True)
    rate = MEGABYTES / float(world.side.read_bytes())
    assert rate > 1000 / 60, f"{rate:.0f} MB/s"


def test_64_runs_in_one_process(world: World) -> None:
    world.write_project("say(b'x\\n')")
    script = world.folder / "load.py"
    script.write_text(
        "import mlflow.projects, os, sys\n"
        f"runs = [mlflow.projects.run({str(world.project)!r}, backend='azureml', synchronous=False) for _ in range(64)]\n"
        "assert all([run.wait() for run in runs])\n"
        "assert len({run.run_id for run in runs}) == 64\n"
    )
    begun = time.monotonic()
    client = world.start(str(script))
    assert client.wait(120) == 0, client.err
    assert [status for _, status in world.runs()] == ["FINISHED"] * 64
    assert world.starts() == 64
    assert len(list(world.store.rglob("std_log.txt"))) == 64
    world.await_quiet()
    check_nothing_left(world)
    check_private(world)
    assert time.monotonic() - begun < 120


@dataclass(frozen=True)
class Submission:
    """One of the soak's: its id, and what happens to it (None: nothing)."""

    name: str
    fault: str | None
    interrupt_after: float | None


def test_soak(world: World) -> None:
    """Seeded submissions, each broken with a probability of 0.05 for each kind of fault: none lost, doubled or stuck."""
    seed = os.environ["MLFLOW_AZURE_FAULT_SEED"]
    dice = random.Random(f"soak {seed}")
    code = "os.write(starts, os.environ['NAME'].encode() + b'\\n'); say(b'x\\n')"
    world.write_project(code)
    submissions = [draw(dice, number) for number in range(SUBMISSIONS)]
    broken = sum(submission.fault is not None or submission.interrupt_after is not None for submission in submissions)
    begun = time.monotonic()
    for start in range(0, SUBMISSIONS, 4):
        batch = submissions[start : start + 4]
        clients = []
        for submission in batch:
            variables = {"NAME": submission.name}
            if submission.fault is not None:
                variables["MLFLOW_AZURE_FAULT"] = submission.fault
            client = world.run("-c", f'{{"submission_id": "{submission.name}"}}', **variables)
            if submission.interrupt_after is not None:
                time.sleep(submission.interrupt_after)
                with contextlib.suppress(ProcessLookupError):  # it has ended by itself
                    client.signal(dice.choice((signal.SIGINT, signal.SIGTERM, signal.SIGKILL)))
            clients.append(client)
        for client in clients:
            client.wait()
    world.await_quiet(120)
    assert world.start("mlflow-azure", "sync").wait(600) == 0
    runs = world.query(
        "SELECT tags.value, runs.status FROM runs JOIN tags ON tags.run_uuid = runs.run_uuid"
        " WHERE tags.key = 'mlflow_azure.submission_id'"
    )
    names = [name for name, _ in runs]
    began = [line for line in Path(f"{world.side}.starts").read_text().splitlines() if line.startswith("soak-")]
    seconds = time.monotonic() - begun
    print(f"soak: seed {seed}, {SUBMISSIONS} submissions, {broken} broken, {len(runs)} runs, {seconds:.0f} s")
    assert len(names) == len(set(names)), "doubled"
    assert len(began) == len(set(began)), "a command ran twice"
    assert set(began) <= set(names), "lost"
    assert {status for _, status in runs} <= {"FINISHED", "FAILED", "KILLED"}, "stuck"
    unbroken = {item.name for item in submissions if item.fault is None and item.interrupt_after is None}
    assert unbroken == {name for name, status in runs if status == "FINISHED" and name in unbroken}
    check_nothing_left(world)
    check_private(world)


def draw(dice: random.Random, number: int) -> Submission:
    fault = None
    if dice.random() < P_FAULT:
        names = [point.name for point in POINTS if not point.builds]
        fault = f"{dice.choice(names)}:{dice.choice(('kill', 'raise', 'sigint'))}"
    elif dice.random() < P_FAULT:
        fault = f"supervisor.{dice.choice(SUPERVISOR_POINTS)}:{dice.choice(('kill', 'raise'))}"
    interrupt = dice.random() * 0.6 if dice.random() < P_FAULT else None
    return Submission(f"soak-{number}", fault, interrupt)


def memory(pid: int) -> int:
    """A process's resident memory, in KiB; 0 when it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")), 0)
