"""What a job keeps on its node: a private folder, and one builder at a time in it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import stat
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path


class CannotRun(Exception):
    """The command cannot be started; one line that says why and what to do."""


def node_folder(environ: Mapping[str, str]) -> Path:
    """``$MLFLOW_AZURE_CACHE``, else a folder of ours in ``/tmp``: the same place on every node, for prefixes carry it.

    Raises:
        CannotRun: It cannot be made, or others can write into it.
    """
    folder = Path(os.path.abspath(environ.get("MLFLOW_AZURE_CACHE") or f"/tmp/mlflow-azure-{os.geteuid()}"))  # noqa: S108, PTH100
    step = "set the variable MLFLOW_AZURE_CACHE to a folder of the job's own"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise CannotRun(f"{folder} cannot be made ({error.strerror}); {step}") from None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise CannotRun(f"{folder} is not this user's alone; {step}")
    return folder


@contextlib.contextmanager
def alone(path: Path) -> Iterator[int]:
    """Hold a file lock, waiting for it; yields its descriptor, for those who must hold it on when we are killed."""
    descriptor = os.open(str(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def run(
    argv: Sequence[str], *, environ: Mapping[str, str], cwd: Path, text: str = "", held: int | None = None
) -> tuple[int, str]:
    """Run a tool to its end: its exit code, and what it wrote on standard error. It dies with an exception of ours.

    Args:
        argv: The tool.
        environ: All of its environment.
        cwd: Where it runs.
        text: Its standard input.
        held: A lock's descriptor that it inherits.
    """
    process = subprocess.Popen(
        argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=dict(environ),
        cwd=str(cwd),
        pass_fds=() if held is None else (held,),
        start_new_session=True,
    )
    try:
        said = process.communicate(text.encode("utf-8"))[1]
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    return process.returncode, said.decode("utf-8", "replace")
