"""Imports MLflow once, then forks clients: MLflow takes seconds to import, and the matrix needs hundreds of clients.

A forked client is otherwise the real thing: a process with its own session, environment, descriptors and signal
dispositions, which runs our ``main`` and ends through the interpreter's own exit. Orders come as one line of JSON on a
connection to the Unix socket; the pid goes back, then the exit code (negative for a signal), then the connection ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import runpy
import select
import signal
import socket
import sys
import tempfile
import threading
import traceback
from typing import Any, NoReturn


def main(address: str) -> None:
    """Serve until standard input, whose other end the tests hold, is closed."""
    import mlflow.cli
    import mlflow.projects
    import mlflow.server
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401

    import mlflow_azure_backend.backend
    import mlflow_azure_backend.cli
    import mlflow_azure_backend.launching  # noqa: F401

    if threading.active_count() != 1:
        raise RuntimeError(f"a process with threads must not be forked: {threading.enumerate()}")
    wakeup, wakeup_end = os.pipe()
    for descriptor in (wakeup, wakeup_end):
        os.set_blocking(descriptor, False)
    signal.set_wakeup_fd(wakeup_end)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(64)
    print("ready", flush=True)
    clients: dict[int, socket.socket] = {}
    sources: list[Any] = [listener, wakeup, 0]
    while True:
        ready = select.select(sources, [], [])[0]
        if 0 in ready:
            return
        if wakeup in ready:
            os.read(wakeup, 4096)
            _report(clients)
        if listener in ready:
            connection = listener.accept()[0]
            order = json.loads(connection.makefile("rb").readline())
            pid = os.fork()
            if pid == 0:
                listener.close()
                for other in (*clients.values(), connection):
                    other.close()
                os.close(wakeup)
                os.close(wakeup_end)
                _become_client(order)
            clients[pid] = connection
            connection.sendall(b"%d\n" % pid)


def _report(clients: dict[int, socket.socket]) -> None:
    for pid in list(clients):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            with clients.pop(pid) as connection, contextlib.suppress(OSError):  # whoever asked may be gone
                connection.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))


def _become_client(order: dict[str, Any]) -> NoReturn:
    code = 70
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN if order["ignore_sigint"] else signal.default_int_handler)
        os.setsid()
        for stream, path in enumerate(order["streams"]):
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND if stream else os.O_RDONLY
            descriptor = os.open(path, flags, 0o600)
            os.dup2(descriptor, stream)
            os.close(descriptor)
        os.chdir(order["cwd"])
        os.environ.clear()
        os.environ.update(order["env"])
        tempfile.tempdir = None  # what this process has read of its own environment before the fork
        code = _run(order["argv"])
    except BaseException:
        traceback.print_exc()
    finally:
        _leave(code)


def _run(argv: list[str]) -> int:
    sys.argv = argv
    try:
        if argv[0] == "mlflow-azure":
            from mlflow_azure_backend.cli import main as ours

            ours()
        elif argv[0] == "mlflow":
            from mlflow.cli import cli as theirs

            theirs()
        else:
            runpy.run_path(argv[0], run_name="__main__")
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else 0 if done.code is None else 1
    return 0


def _leave(code: int) -> NoReturn:
    """As the interpreter does: threads are waited for, exit functions run, streams flushed."""
    import atexit

    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        code = code or 120
    finally:
        os._exit(code)


if __name__ == "__main__":
    main(sys.argv[1])
