"""Rows 21 to 23, and what a network does to a tracking server: at the start, in the middle, at the end."""

from __future__ import annotations

import re
import signal
import socket
import time

import pytest

from tests.faults.checker import check
from tests.faults.proxy import Fault, Proxy
from tests.faults.world import FOR_EVER, QUICK, WAITING, World, until

CREATE = "POST .*/runs/create"
END = "POST .*/runs/update"
ARTIFACT = "PUT .*/std_log.txt"
BOUND = 30.0
"""Seconds that a store which is away may cost; with the user's own, shorter MLFLOW_HTTP_REQUEST_TIMEOUT of 2 s."""
AWAY = ("reset", "hang", "503", "garbage", "401", "truncated")


@pytest.mark.parametrize("away", ["refuse", *AWAY])
def test_away_at_the_start(world: World, served: Proxy, away: str) -> None:
    world.write_project(QUICK)
    if away == "refuse":
        served.close()
    served.faults = [Fault(away)]
    begun = time.monotonic()
    client = world.run()
    assert client.wait() == 1
    assert time.monotonic() - begun < BOUND
    if away == "refuse":
        served.open()
    served.faults = []
    sync(world)
    check(world, runs=world_runs(world, away), starts=0, says=("tracking s", served.url), recorded=False)


@pytest.mark.parametrize("kind", ["reset", "reset_after", "503", "truncated"])
def test_a_lost_answer_makes_no_second_run(world: World, served: Proxy, kind: str) -> None:
    world.write_project(QUICK)
    served.faults = [Fault(kind, CREATE, times=1)]
    code = world.run().wait()
    made = kind in ("reset_after", "truncated")
    assert (code == 0) == made
    check(
        world,
        runs=int(made),
        status="FINISHED" if made else None,
        says=("finished",) if made else ("tracking s",),
        recorded=made,
    )


@pytest.mark.parametrize("route", [ARTIFACT, END, "log-batch", "GET .*/runs/get"], ids=["log", "end", "tags", "status"])
@pytest.mark.parametrize("kind", ["503", "429", "reset"])
def test_a_hiccup_is_not_noticed(world: World, served: Proxy, route: str, kind: str) -> None:
    world.write_project(QUICK)
    served.faults = [Fault(kind, route, times=1)]
    assert world.run().wait() == 0
    check(world, status="FINISHED", says=("finished",))


@pytest.mark.parametrize("away", ["refuse", *AWAY])
@pytest.mark.parametrize("since", ["mid-run", "the end"])
def test_away_later_is_delivered_by_sync(world: World, served: Proxy, away: str, since: str) -> None:
    world.write_project(WAITING)
    client = world.run()
    world.await_child()
    if since == "mid-run" or away == "refuse":
        served.faults = [Fault(away)]
        if away == "refuse":
            served.close()
    else:
        served.faults = [Fault(away, END)]
    begun = time.monotonic()
    world.open_gate()
    assert client.wait() == 0, client.err  # the job's own exit code: it did finish
    assert time.monotonic() - begun < BOUND
    written = away == "truncated" and since == "the end"  # the server has done it, and we could not read its answer
    assert [status for _, status in world.runs()] == ["FINISHED" if written else "RUNNING"]
    assert "not told yet" in client.err
    assert "mlflow-azure sync" in client.err
    begun = time.monotonic()
    assert world.next_command()
    assert time.monotonic() - begun < BOUND
    begun = time.monotonic()
    assert world.next_command()
    assert time.monotonic() - begun < 2, "what was away a moment ago is asked again by every command"
    served.faults = []
    if away == "refuse":
        served.open()
    sync(world)
    check(world, status="FINISHED", says=None)


def test_away_when_the_client_is_killed(world: World, served: Proxy) -> None:
    world.write_project(WAITING)
    client = world.run()
    world.await_child()
    served.close()
    client.signal(signal.SIGKILL)
    client.wait()
    world.await_quiet()
    served.open()
    sync(world)
    check(world, status="KILLED", killed=True)


def test_a_server_that_drips_is_given_up(world: World, served: Proxy) -> None:
    """One byte a second lets no read time out; the answer to the search for the run drips, too."""
    world.write_project(QUICK)
    served.faults = [Fault("slow")]
    begun = time.monotonic()
    assert world.run().wait() == 1
    assert time.monotonic() - begun < 2 * BOUND
    served.faults = []
    world.await_quiet()
    sync(world)
    check(world, runs=1, starts=0, says=("tracking store", "no whole answer within 8 s"), recorded=False)


def test_a_run_whose_making_drips_is_found_by_its_tag(world: World, served: Proxy) -> None:
    world.write_project(QUICK)
    served.faults = [Fault("slow", CREATE)]
    assert world.run().wait() == 0
    check(world, status="FINISHED", says=("finished",))


def test_an_end_whose_answer_drips_is_said_again_by_sync(world: World, served: Proxy) -> None:
    world.write_project(QUICK)
    served.faults = [Fault("slow", END)]
    client = world.run()
    begun = time.monotonic()
    assert client.wait() == 0
    assert time.monotonic() - begun < BOUND
    assert "not told yet" in client.err
    served.faults = []
    sync(world)
    check(world, status="FINISHED", says=None)


@pytest.mark.parametrize(
    ("hangs", "since", "runs"),
    [(CREATE, CREATE, 0), ("", "runs/create|runs/search", 0), (ARTIFACT, ARTIFACT, 1), (END, END, 1)],
    ids=["creation", "everything", "log", "end"],
)
def test_interrupt_while_the_server_hangs(world: World, served: Proxy, hangs: str, since: str, runs: int) -> None:
    world.write_project(QUICK)
    served.faults = [Fault("hang", hangs)]
    client = world.run(MLFLOW_HTTP_REQUEST_TIMEOUT="60")
    wait_for_request(served, since)
    begun = time.monotonic()
    client.signal(signal.SIGINT)
    assert client.wait(BOUND) == 130
    assert time.monotonic() - begun < 3, "on a quiet machine it takes less than a second; the server's silence takes 10"
    served.faults = []
    world.await_quiet()
    sync(world)
    says = ("status",) if runs else ("interrupted",)
    check(world, runs=runs, status="FINISHED" if runs else None, says=says, recorded=bool(runs))


def test_one_interrupt_of_a_job_whose_server_hangs(world: World, served: Proxy) -> None:
    """The user is told at once; the end is kept for whoever comes next."""
    world.write_project(FOR_EVER)
    client = world.run()
    world.await_child()
    served.faults = [Fault("hang")]
    client.signal(signal.SIGINT)
    until(lambda: "Ctrl-C again leaves at once" in client.err)
    assert client.wait() == 130
    assert "not told yet" in client.err
    served.faults = []
    world.await_quiet()
    sync(world)
    check(world, status="KILLED", killed=True, says=("cancelled", "mlflow-azure sync"))


def test_sync_with_many_runs_asks_a_dead_server_once(world: World, served: Proxy) -> None:
    world.write_project(WAITING)
    clients = [world.run("--detach", MLFLOW_HTTP_REQUEST_TIMEOUT="10") for _ in range(4)]
    assert [client.wait() for client in clients] == [0] * 4
    served.faults = [Fault("hang")]
    world.open_gate_to(4)
    world.await_quiet(120)
    served.seen.clear()
    begun = time.monotonic()
    done = world.start("mlflow-azure", "sync")
    assert done.wait() == 1
    assert time.monotonic() - begun < BOUND
    assert "not delivered" in done.err
    served.faults = []
    sync(world)
    check(world, runs=4, status="FINISHED", logs_apart=True)


def test_a_port_where_nobody_answers_the_handshake(world: World) -> None:
    """A full backlog drops the client's SYN: as a firewall does, and as a machine that is off."""
    world.write_project(QUICK)
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        with socket.create_connection(full.getsockname()), socket.socket() as second:
            second.setblocking(False)
            second.connect_ex(full.getsockname())
            world.environment["MLFLOW_TRACKING_URI"] = f"http://127.0.0.1:{full.getsockname()[1]}"
            begun = time.monotonic()
            assert world.run().wait() == 1
            assert time.monotonic() - begun < 10
    check(world, runs=0, starts=0, says=("tracking server cannot be reached",), recorded=False)


def sync(world: World) -> None:
    done = world.start("mlflow-azure", "sync")
    assert done.wait() == 0, done.err


def world_runs(world: World, away: str) -> int:
    """A truncated answer comes after the run was made: it is found by its tag, and ended."""
    return len(world.runs()) if away == "truncated" else 0


def wait_for_request(proxy: Proxy, route: str) -> None:
    until(lambda: any(re.search(route, seen) for seen in proxy.seen))
