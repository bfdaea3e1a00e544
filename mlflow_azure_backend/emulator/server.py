"""The emulator's process: listens, answers, and takes down all that it started."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any, TextIO

from aiohttp import web

from mlflow_azure_backend.emulator.execution import Execution
from mlflow_azure_backend.emulator.front import LONGEST_BODY, Front
from mlflow_azure_backend.emulator.problems import EmulatorProblem
from mlflow_azure_backend.emulator.proxy import ConnectProxy
from mlflow_azure_backend.emulator.routing import Router
from mlflow_azure_backend.emulator.services import ALL
from mlflow_azure_backend.emulator.settings import Settings, settle
from mlflow_azure_backend.emulator.world import World


async def serve(folder: Path, cache: Path, settings: Settings, port: int, said: TextIO, leash: int | None) -> None:
    """Serve until told to end.

    Args:
        folder: The state folder.
        cache: Where Azurite is installed.
        settings: What this emulator is.
        port: On loopback; 0: any that is free.
        said: Gets one line of JSON, ``{"port": …}``, when the front answers.
        leash: A descriptor whose end of file ends the emulator; None: only a signal does.

    Raises:
        EmulatorProblem: The port is taken, or a part of the emulator ended by itself.
    """
    world = World.open(folder, cache, settings)
    world.authority.bundle()
    _write_config(folder, settings)
    stop = _stop_event(leash)
    front = Front(world, Router(ALL))
    http = web.Server(front.answer, request_factory=_request, access_log=None, keepalive_timeout=120)
    tasks: set[asyncio.Task[None]] = set()
    loop = asyncio.get_running_loop()
    try:
        listener = await loop.create_server(
            lambda: ConnectProxy(world.authority, http, settings.outside, tasks, world.faults.connecting),
            "127.0.0.1",
            port,
            backlog=1024,
        )
    except (OSError, OverflowError) as error:
        why = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else error
        raise EmulatorProblem(f"port {port} on 127.0.0.1 cannot be had ({why}); choose another with --port") from None
    try:
        bound = listener.sockets[0].getsockname()[1]
        print(json.dumps({"port": bound, "pid": os.getpid()}), file=said, flush=True)
        world.address.append(bound)
        for job in world.jobs.resume():
            world.carry_out(Execution(world, job))
        storage = world.storage.start()
        waiting = asyncio.ensure_future(stop.wait())
        done, _ = await asyncio.wait([storage, waiting], return_when=asyncio.FIRST_COMPLETED)
        if storage in done and storage.exception() is not None:
            raise storage.exception() or EmulatorProblem("Azurite did not start")
        await waiting
    finally:
        listener.close()
        for task in tasks:
            task.cancel()
        await http.shutdown(1.0)
        await world.close()


def _write_config(folder: Path, settings: Settings) -> None:
    """The file that the studio offers for download, and ``MLClient.from_config`` reads."""
    names = ("subscription_id", "resource_group", "workspace_name")
    config = {name: getattr(settings, name) for name in names}
    (folder / "config.json").write_text(json.dumps(config, indent=1), "utf-8")


def _request(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
    loop = asyncio.get_running_loop()
    return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=LONGEST_BODY)


def _stop_event(leash: int | None) -> asyncio.Event:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if leash is not None:

        def at_end_of_file() -> None:
            with contextlib.suppress(BlockingIOError):
                if not os.read(leash, 4096):
                    loop.remove_reader(leash)
                    stop.set()

        os.set_blocking(leash, False)
        loop.add_reader(leash, at_end_of_file)
    return stop


def run(folder: Path, cache: Path, given: dict[str, Any], port: int, *, leashed: bool) -> None:
    """Serve in this process; see `serve`.

    Args:
        folder: The state folder, made where it is missing.
        cache: Where Azurite is installed.
        given: Settings, over those that the folder keeps.
        port: On loopback; 0: any that is free.
        leashed: Whether the end of standard input ends the emulator.

    Raises:
        EmulatorProblem: The folder is another emulator's, a setting is unknown, or as `serve` says.
    """
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EmulatorProblem(
                f"{folder}: another emulator works there; choose another folder with --state"
            ) from None
        settings = settle(folder, given)
        asyncio.run(serve(folder, cache, settings, port, sys.stdout, sys.stdin.fileno() if leashed else None))
