"""Processes that the emulator owns: each under a keeper of its own, so that none outlives it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

_KEEPER = Path(__file__).with_name("keeper.py")


class CannotStart(Exception):
    """The command is not there, or may not be run; the text is the system's."""


class Process:
    """One command and all that it starts."""

    def __init__(self, keeper: asyncio.subprocess.Process, pid: int) -> None:
        self._keeper = keeper
        self.pid = pid
        self._ended = asyncio.ensure_future(self._follow())

    @classmethod
    async def start(
        cls,
        argv: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        log: Path,
        grace: float = 10.0,
        after: Sequence[Sequence[str]] = (),
    ) -> Process:
        """Start a command.

        Args:
            argv: The command; found by the PATH of ``env``.
            cwd: Where it runs.
            env: All of its environment.
            log: The file that what it writes is appended to.
            grace: Seconds between TERM and KILL when it is stopped.
            after: Commands to run when the tree is gone, however it went: they remove what it made elsewhere.

        Raises:
            CannotStart: The command is not there, or may not be run.
        """
        pipe = asyncio.subprocess.PIPE
        keeper = await asyncio.create_subprocess_exec(sys.executable, "-I", "-S", str(_KEEPER), stdin=pipe, stdout=pipe)
        order = {"argv": list(argv), "cwd": str(cwd), "env": dict(env), "log": str(log), "grace": grace}
        order["after"] = [list(one) for one in after]
        stdin, stdout = _pipes(keeper)
        stdin.write(json.dumps(order).encode() + b"\n")
        await stdin.drain()
        word, _, rest = (await stdout.readline()).decode().strip().partition(" ")
        if word != "S":
            await keeper.wait()
            raise CannotStart(rest)
        return cls(keeper, int(rest))

    async def ended(self) -> int:
        """Wait until the whole tree is gone; the command's exit code, negative for a signal."""
        return await asyncio.shield(self._ended)

    async def stop(self) -> int:
        """TERM, KILL after the grace, and wait for the end; the exit code as in `ended`."""
        stdin, _ = _pipes(self._keeper)
        with contextlib.suppress(ConnectionError):
            stdin.write(b"T\n")
            await stdin.drain()
        return await self.ended()

    async def kill(self) -> int:
        """KILL the tree at once, and wait for the end."""
        stdin, _ = _pipes(self._keeper)
        stdin.close()
        return await self.ended()

    async def _follow(self) -> int:
        _, stdout = _pipes(self._keeper)
        word, _, rest = (await stdout.readline()).decode().strip().partition(" ")
        await self._keeper.wait()
        return int(rest) if word == "E" else -9  # a killed keeper takes the command with it


def _pipes(keeper: asyncio.subprocess.Process) -> tuple[asyncio.StreamWriter, asyncio.StreamReader]:
    if keeper.stdin is None or keeper.stdout is None:
        raise RuntimeError("a keeper is started with pipes")
    return keeper.stdin, keeper.stdout
