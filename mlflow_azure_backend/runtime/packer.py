"""A process beside the command that keeps the new environment for later jobs, at the lowest priority."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable
from pathlib import Path

from .keeping import Unusable, listing, pack

_LEAST_SECONDS = 60.0
"""For which the job's end waits for it at least."""
_POLL = 0.2


class Packer:
    """One that packs; made before the command starts, for what the command changes is not to be kept.

    Args:
        prefix: The environment that was installed just now.
        folder: Where the key's archives are.
        key: The environment key.
        scratch: A folder of this node.
        installed_in: Seconds that the installation took: later jobs cannot save more each, so no longer is waited.
    """

    def __init__(self, prefix: Path, folder: Path, key: str, scratch: Path, installed_in: float) -> None:
        self._patience = max(_LEAST_SECONDS, installed_in)
        listed = listing(prefix)
        self._answer, answering = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._answer)
            _pack(prefix, listed, folder, key, scratch, answering)
        os.close(answering)

    def finish(self, unless: Callable[[], bool]) -> str:
        """Wait for its end within bounds; what became of it, in one line.

        Args:
            unless: Whether the job is asked to end, and with it the waiting.
        """
        ends = time.monotonic() + self._patience
        said = b""
        try:
            while not unless():
                if time.monotonic() > ends:
                    return f"not kept: it took longer than {self._patience:.0f} s"
                if select.select([self._answer], [], [], _POLL)[0]:
                    piece = os.read(self._answer, 4096)
                    if not piece:
                        return said.decode("utf-8", "replace") or "not kept: the packer was killed"
                    said += piece
            return "not kept: the job was ended"
        finally:
            self.stop()

    def stop(self) -> None:
        """End it at once; it may have ended."""
        for end in (os.killpg, os.kill):  # it leads a group as soon as it runs
            with contextlib.suppress(OSError):
                end(self.pid, signal.SIGKILL)
        with contextlib.suppress(OSError):
            os.waitpid(self.pid, 0)
        with contextlib.suppress(OSError):
            os.close(self._answer)


def _pack(
    prefix: Path, listed: dict[str, tuple[int, ...]], folder: Path, key: str, scratch: Path, answering: int
) -> None:
    """The packer's whole life."""
    try:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL)
        os.setsid()
        os.nice(19)
        begun = time.monotonic()
        size = pack(prefix, listed, folder, key, scratch)
        said = f"kept in {time.monotonic() - begun:.1f} s, {size / 1e6:.0f} MB"
    except (Unusable, OSError) as problem:
        said = f"not kept: {problem}"
    try:
        os.write(answering, said.encode("utf-8", "replace"))
    finally:
        os._exit(0)
