"""Row 24 again: Ctrl-C at moments at which Python itself loses it, and at any other."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable

import pytest

from tests.faults.checker import check
from tests.faults.world import FOR_EVER, WAITING, World, until

INTERRUPTED = 130
CLIENT = """
import os, signal, sys, weakref
from pathlib import Path
from mlflow_azure_backend.cli.commands import INTERRUPTED
from mlflow_azure_backend.console import Console
from mlflow_azure_backend.launching import launch_here, watching
from mlflow_azure_backend.planning import Order

class Garbage:
    def __del__(self):
        if sys.argv[2] == "__del__":
            os.kill(os.getpid(), signal.SIGINT)

def lose_an_interrupt():
    garbage = Garbage()
    callback = lambda _: os.kill(os.getpid(), signal.SIGINT) if sys.argv[2] == "weakref" else None
    reference = weakref.ref(garbage, callback)
    del garbage

class Careless(Console):
    def phase(self, name):
        if sys.argv[3] == name:
            lose_an_interrupt()
        return super().phase(name)
    def job_output(self, chunk):
        super().job_output(chunk)
        if sys.argv[3] == "log":
            lose_an_interrupt()

with watching():
    order = Order(sys.argv[1], "main", None, {}, {}, Path.cwd())
    try:
        launch_here(order, Careless(), experiment_name=None, experiment_id=None, run_name=None).wait()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
"""
"""Ours but for a console that drops an object whose end is interrupted, when a phase begins or when the log grows."""


@pytest.mark.always
@pytest.mark.parametrize(("loser", "moment"), [("weakref", "snapshot"), ("weakref", "log"), ("__del__", "log")])
def test_an_interrupt_that_python_drops(world: World, loser: str, moment: str) -> None:
    world.write_project(FOR_EVER)
    script = world.folder / "run.py"
    script.write_text(CLIENT)
    client = world.start(str(script), str(world.project), loser, moment)
    assert client.wait() == INTERRUPTED, client.err
    assert "ignored" not in client.err
    check(world, starts=int(moment == "log"), status="KILLED", killed=True, recorded=moment == "log")


@pytest.mark.parametrize("part", range(20))
def test_an_interrupt_at_any_moment(new_world: Callable[[], World], part: int) -> None:
    """Of a job that would not end by itself: whoever loses the interrupt follows it for ever."""
    dice = random.Random(part)
    for _ in range(5):
        world = new_world()
        world.write_project(FOR_EVER)
        client = world.run()
        until(world.home.exists)  # from then on its handlers are set
        time.sleep(dice.random())
        client.signal(signal.SIGINT)
        assert client.wait() == INTERRUPTED, client.err
        world.await_quiet()
        world.next_command()
        check(
            world,
            runs=len(world.runs()),
            starts=world.starts(),
            status="KILLED",
            killed=True,
            recorded=world.starts() > 0,
            says=(),
        )


SHARED = '{"submission_id": "the same"}'


@pytest.mark.parametrize(
    ("command", "code"), [(("mlflow-azure", "run"), INTERRUPTED), (("mlflow", "run", "-b", "azureml"), 1)]
)
def test_who_only_watches_says_that_the_job_goes_on(world: World, command: tuple[str, ...], code: int) -> None:
    world.write_project(WAITING)
    owner = world.run("-c", SHARED)
    world.await_child()
    config = world.folder / "shared.json"
    config.write_text(SHARED)
    option = "-c" if command[0] == "mlflow-azure" else "--backend-config"
    watcher = world.start(*command, str(world.project), option, str(config))
    until(lambda: watcher.out == b"ready\n")
    watcher.signal(signal.SIGINT)
    assert watcher.wait() == code, watcher.err
    ((run_id, _),) = world.runs()
    assert f"follow it with `mlflow-azure attach {run_id[:8]}`" in watcher.err
    assert "mistake" not in watcher.err
    world.open_gate()
    assert owner.wait() == 0
    check(world, status="FINISHED", says=None)


def test_a_repetition_that_is_left_alone_goes_on(world: World) -> None:
    world.write_project(WAITING)
    first = world.run("-c", '{"on_interrupt": "detach"}')
    world.await_child()
    world.open_gate()
    assert first.wait() == 0, first.err
    ((run_id, _),) = world.runs()
    again = world.start("mlflow-azure", "rerun", run_id)
    world.await_child(2)
    again.signal(signal.SIGINT)
    assert again.wait() == INTERRUPTED, again.err
    assert "goes on; follow it with `mlflow-azure attach" in again.err
    world.open_gate()
    check(world, runs=2, status="FINISHED", logs_apart=True)
