"""Rows 24 to 26 and 42: signals, streams that go away, families that will not end, a machine that goes down."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.faults.checker import check
from tests.faults.world import FOR_EVER, QUICK, WAITING, World, until

INTERRUPTED = 130
STUBBORN = "signal.signal(signal.SIGTERM, lambda *_: say(b'no\\n'))\n" + FOR_EVER
FAMILY = """
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
    signal.signal(number, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.setsid()
        while True: signal.pause()
    os._exit(0)
"""
"""A daemon with a session of its own that holds the pipe open and listens to nobody."""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_one_signal_cancels(world: World, number: signal.Signals) -> None:
    world.write_project(FOR_EVER)
    client = world.run()
    world.await_child()
    client.signal(number)
    assert client.wait() == INTERRUPTED
    check(world, status="KILLED", killed=True, says=("cancelled",))


def test_the_second_interrupt_leaves_at_once(world: World) -> None:
    world.write_project(STUBBORN)
    client = world.run()
    world.await_child()
    client.signal(signal.SIGINT)
    until(lambda: world.side.read_bytes().endswith(b"no\n"))
    begun = time.monotonic()
    client.signal(signal.SIGINT)
    assert client.wait(5) == INTERRUPTED
    assert time.monotonic() - begun < 3
    check(world, status="KILLED", killed=True, says=("left at once", "mlflow-azure status"))


def test_interrupt_that_was_ignored_when_we_began_stays_ignored(world: World) -> None:
    world.write_project(WAITING)
    client = world.run(ignore_sigint=True)
    world.await_child()
    client.signal(signal.SIGINT)
    world.open_gate()
    assert client.wait() == 0
    check(world, status="FINISHED", says=("finished",))


@pytest.mark.parametrize("number", [signal.SIGHUP], ids=lambda number: number.name)
def test_a_terminal_that_goes_away_ends_nothing(world: World, number: signal.Signals) -> None:
    world.write_project(WAITING)
    client = world.run()
    world.await_child()
    client.signal(number)
    world.open_gate()
    assert client.wait() == 0
    check(world, status="FINISHED", says=("finished",))


def test_a_stdout_that_nobody_reads_any_more_ends_nothing(world: World) -> None:
    world.write_project(WAITING)
    pipe = world.folder / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    client = world.run(out=pipe)
    world.await_child()
    os.close(reader)
    world.open_gate()
    assert client.wait() == 0
    check(world, status="FINISHED", says=("finished",))


@pytest.mark.parametrize("killer", ["cancel", "client's death"])
def test_a_family_that_will_not_end_is_ended_within_15_seconds(world: World, killer: str) -> None:
    world.write_project(FAMILY + STUBBORN)
    client = world.run()
    world.await_child()
    begun = time.monotonic()
    client.signal(signal.SIGINT if killer == "cancel" else signal.SIGKILL)
    assert client.wait() == (INTERRUPTED if killer == "cancel" else -signal.SIGKILL)
    until((world.run_folders()[0] / "outcome.json").exists)  # it says that the whole tree is gone
    assert time.monotonic() - begun < 15
    check(world, status="KILLED", killed=True, says=("cancelled",) if killer == "cancel" else None)


def test_a_daemon_that_a_finished_command_leaves_behind_is_ended(world: World) -> None:
    world.write_project(FAMILY.replace("signal.SIGTERM, ", "") + QUICK)
    client = world.run()
    assert client.wait(15) == 0
    check(world, status="FINISHED", says=("finished",))


@pytest.mark.parametrize("family", ["", FAMILY], ids=["alone", "with a daemon"])
def test_kill_9_of_the_supervisor(world: World, family: str) -> None:
    world.write_project(family + FOR_EVER)
    client = world.run()
    world.await_child()
    world.await_log()
    os.kill(world.supervisor(), signal.SIGKILL)
    assert client.wait(15) == 1
    check(world, status="FAILED", killed=True, says=("supervisor",))


def test_kill_9_of_a_detached_job_s_supervisor(world: World) -> None:
    world.write_project(FOR_EVER)
    client = world.run("--detach")
    assert client.wait() == 0
    world.await_child()
    world.await_log()
    os.kill(world.supervisor(), signal.SIGKILL)
    world.await_quiet()
    world.next_command()
    check(world, status="FAILED", killed=True)


def test_a_lost_job_s_variable_in_a_user_s_terminal_kills_nobody(world: World) -> None:
    world.write_project(FAMILY + FOR_EVER)
    world.run("--detach").wait()
    world.await_child()
    world.await_log()
    ((run_id, _),) = world.runs()
    terminal, end = os.openpty()
    variables = {**os.environ, "MLFLOW_AZURE_RUN_ID": run_id}
    with subprocess.Popen(["setsid", "--ctty", "sleep", "600"], stdin=end, env=variables) as bystander:
        until(lambda: Path(f"/proc/{bystander.pid}/cmdline").read_bytes().startswith(b"sleep"))
        os.kill(world.supervisor(), signal.SIGKILL)
        world.next_command(MLFLOW_AZURE_RUN_ID=run_id)  # as from a shell without a terminal
        world.await_quiet()
        assert bystander.poll() is None
        bystander.kill()
    for descriptor in (terminal, end):
        os.close(descriptor)
    check(world, status="FAILED", killed=True)


@pytest.mark.parametrize("detached", [False, True])
def test_the_machine_goes_down(world: World, detached: bool) -> None:
    world.write_project(FOR_EVER)
    client = world.run(*(["--detach"] if detached else []))
    if detached:
        assert client.wait() == 0
    world.await_child()
    world.await_log()
    supervisor = world.supervisor()
    for pid in [client.pid] if not detached else []:
        os.kill(pid, signal.SIGSTOP)
    for pid in (supervisor, *world.processes()):
        kill_if_there(pid)
    if not detached:
        client.signal(signal.SIGKILL)
        client.wait()
    world.await_quiet()
    world.next_command()
    check(world, status="FAILED", killed=True)
    ((run_id, _),) = world.runs()
    tags = dict(world.query(f"SELECT key, value FROM tags WHERE run_uuid = '{run_id}'"))  # noqa: S608
    assert tags["mlflow_azure.reason"] == "lost"


def test_the_pid_of_a_lost_supervisor_is_somebody_else_s_now(world: World) -> None:
    world.write_project(FOR_EVER)
    world.run("--detach").wait()
    world.await_child()
    world.await_log()
    supervisor = world.supervisor()
    os.kill(supervisor, signal.SIGKILL)
    world.await_quiet()
    identity = world.run_folders()[0] / "supervisor.json"
    with subprocess.Popen(["sleep", "60"]) as bystander:
        identity.write_text(identity.read_text().replace(str(supervisor), str(bystander.pid)))
        ((run_id, _),) = world.runs()
        client = world.start("mlflow-azure", "cancel", run_id)
        assert client.wait() == 0, client.err
        assert bystander.poll() is None
        bystander.kill()
    check(world, status="FAILED", killed=True)


def kill_if_there(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
