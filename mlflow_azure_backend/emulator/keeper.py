"""Keep one process tree: start a command, and leave nothing of it when the emulator ends, however that ends.

Run by path, ``python -I -S keeper.py``; standard library only. The first line on standard input is the order (JSON:
``argv, cwd, env, log, grace, after``); after that standard input is the leash: its end ends the tree, the line ``T``
ends it with a TERM first and a KILL after ``grace`` seconds. The commands in ``after`` are run once the tree is gone.
Standard output tells ``S <pid>`` and, in the end, ``E <exit code>`` (negative: the signal). What the command writes
goes straight into the file ``log``.
"""

# ruff: noqa: PTH123, SIM105
from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from typing import Any

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LIBRARY = ctypes.CDLL(None) if sys.platform == "linux" else None


def main() -> int:
    """Keep the tree that standard input orders."""
    if _LIBRARY is not None:
        _LIBRARY.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's Ctrl-C is the emulator's to answer
    leash: Any = sys.stdin.buffer.raw  # type: ignore[union-attr]  # unbuffered: select must see what is there
    order = json.loads(_line(leash))
    try:
        with open(order["log"], "ab", buffering=0) as log:
            child = subprocess.Popen(
                order["argv"],
                cwd=order["cwd"],
                env=order["env"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_keeper,  # noqa: PLW1509  # this process has one thread
            )
    except OSError as error:
        _say(f"X {error}")
        return 1
    _say(f"S {child.pid}")
    wake, doorbell = os.pipe()
    os.set_blocking(doorbell, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(doorbell, warn_on_full_buffer=False)
    while child.poll() is None:
        ready, _, _ = select.select([leash, wake], [], [], 1.0)
        if wake in ready:
            os.read(wake, 4096)
        if leash in ready:
            polite = _line(leash).startswith(b"T")
            _end(child, order["grace"] if polite else 0.0)
            break
    code = child.wait()
    _kill_tree()
    for argv in order["after"]:
        _clean(argv)
    _say(f"E {code}")
    return 0


def _clean(argv: list[str]) -> None:
    """Run a command that removes what the tree made elsewhere; how it ends is its own affair."""
    nothing = subprocess.DEVNULL
    try:
        subprocess.run(argv, stdin=nothing, stdout=nothing, stderr=nothing, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        pass


def _die_with_keeper() -> None:
    if _LIBRARY is not None:
        _LIBRARY.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _line(stream: object) -> bytes:
    """One line, or what came before the end of the stream."""
    line = b""
    while not line.endswith(b"\n"):
        byte: bytes = stream.read(1)  # type: ignore[attr-defined]  # a raw stream
        if not byte:
            break
        line += byte
    return line


def _say(line: str) -> None:
    try:
        os.write(1, line.encode() + b"\n")
    except OSError:
        pass  # the emulator is gone; the tree still has to be ended


def _end(child: subprocess.Popen[bytes], grace: float) -> None:
    """TERM to the command's group, and KILL when the grace is over."""
    if grace > 0:
        _signal_group(child.pid, signal.SIGTERM)
        deadline = time.monotonic() + grace
        while child.poll() is None and time.monotonic() < deadline:
            select.select([], [], [], 0.02)
    _signal_group(child.pid, signal.SIGKILL)


def _kill_tree() -> None:
    """KILL what the command left behind, in sessions of its own too: orphans are handed to us."""
    for _ in range(200):
        descendants = _children(os.getpid())
        if not descendants:
            return
        for pid in descendants:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        try:
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
        except ChildProcessError:
            pass
        select.select([], [], [], 0.01)


def _children(pid: int) -> list[int]:
    """Process ids below ``pid``; empty where there is no /proc."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            direct = [int(word) for word in file.read().split()]
    except OSError:
        return []
    return direct + [below for child in direct for below in _children(child)]


def _signal_group(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        pass


if __name__ == "__main__":
    sys.exit(main())
