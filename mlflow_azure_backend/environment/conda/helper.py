"""A Python process of ours that does what must not happen in the client: heavy imports, rattler's threads."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from mlflow_azure_backend.environment.indexes import redact

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Helper:
    """A process that reports by lines on its standard output."""

    process: subprocess.Popen[bytes]
    diary: IO[bytes]

    def lines(self) -> Iterator[str]:
        """What it says, until it ends."""
        if self.process.stdout is not None:
            for line in self.process.stdout:
                yield line.decode("utf-8", "replace").rstrip("\n")
        self.process.wait()

    def last_words(self) -> str:
        """The last line on its standard error, without credentials."""
        self.diary.seek(0)
        said = self.diary.read().decode("utf-8", "replace").strip().splitlines()
        return redact(said[-1]) if said else f"it was killed ({self.process.returncode})"


@contextlib.contextmanager
def helper(
    command: Sequence[str], text: bytes, *, cache: Path, variables: Mapping[str, str], inherited: Sequence[int]
) -> Iterator[Helper]:
    """Start it; it is dead when the block is left, however that happens.

    Args:
        command: What to start.
        text: Its standard input.
        cache: A folder of ours to run in, because ``python -m`` puts the current one first on its path.
        variables: Added to our own environment.
        inherited: Descriptors that it inherits.
    """
    environ = {**os.environ, **variables}
    with tempfile.TemporaryFile() as diary:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=diary,
            cwd=cache,
            env=environ,
            pass_fds=tuple(inherited),
        )
        try:
            with contextlib.suppress(BrokenPipeError):
                if process.stdin is not None:
                    with process.stdin:
                        process.stdin.write(text)
            yield Helper(process, diary)
        finally:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
