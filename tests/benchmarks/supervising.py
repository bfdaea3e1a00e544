"""P11, P12 and the memory of a supervisor: what it costs that somebody watches."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from mlflow_azure_backend import supervisor
from tests.benchmarks.bench import Bench
from tests.benchmarks.measure import PAIRS, Goal, Result, by_turns, percentile, timed

_MB: Final = 1 << 20
_WRITERS: Final = {
    "64 KiB chunks": "import os\nfor _ in range(8000): os.write(1, b'x' * 65535 + b'\\n')",
    "buffered lines": "for _ in range(3000000): print('epoch 12 step 003456 loss 0.123456789 accuracy 0.98765')",
    "flushed lines": "for _ in range(500000): print('epoch 12 loss 0.123456789 accuracy 0.98765', flush=True)",
}
_LATENCY: Final = (
    "import os, random, struct, time\n"
    "for _ in range(1000):\n"
    "    time.sleep(random.random() * 0.004)\n"
    "    os.write(1, struct.pack('d', time.monotonic()))\n"
)
_HOLDING: Final = (
    "import os, time\nfor _ in range(200): os.write(1, bytes(65536))\nos.write(1, b'end')\ntime.sleep(60)\n"
)


@dataclass
class Supervised:
    """A command under a supervisor of its own, as the local target starts it."""

    process: subprocess.Popen[bytes]
    folder: Path
    doorbell: int
    leash: int

    @property
    def log(self) -> Path:
        """What the command has written."""
        return self.folder / "std_log.txt"


@contextlib.contextmanager
def supervised(bench: Bench, code: str) -> Iterator[Supervised]:
    """Start Python code under a supervisor; the end of the block ends it."""
    folder = Path(tempfile.mkdtemp(dir=bench.folder))
    doorbell, doorbell_far = os.pipe()
    leash_far, leash = os.pipe()
    order = {
        "argv": [sys.executable, "-I", "-S", "-c", code],
        "cwd": str(folder),
        "env": bench.environment,
        "grace": 1,
        "timeout": None,
        "leash_fd": leash_far,
        "held_fds": [],
        "notify_fd": doorbell_far,
        "on_end": None,
        "on_end_env": {},
    }
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", str(Path(supervisor.__file__)), str(folder)],
        stdin=subprocess.PIPE,
        pass_fds=(doorbell_far, leash_far),
    )
    os.close(doorbell_far)
    os.close(leash_far)
    if process.stdin is not None:
        with process.stdin:
            process.stdin.write(json.dumps(order).encode() + b"\n")
    try:
        yield Supervised(process, folder, doorbell, leash)
    finally:
        os.close(leash)
        process.wait()
        os.close(doorbell)
        shutil.rmtree(folder)


def throughput(bench: Bench) -> Iterator[Result]:
    """P11: how fast a command gets rid of what it writes."""
    for name, code in _WRITERS.items():

        def ours(code: str = code) -> None:
            with supervised(bench, code) as job:
                drain = threading.Thread(target=_drain, args=(job.doorbell,))
                drain.start()
                job.process.wait()
                drain.join()

        def file(code: str = code) -> None:
            with (bench.folder / "peer.log").open("wb") as output:
                subprocess.run([sys.executable, "-I", "-S", "-c", code], stdout=output, check=True)

        ((wall, cpu),) = by_turns(timed(ours), timed(file))
        speed = [1 / ratio for ratio in wall]
        what = f"log capture, MB/s: {name}"
        yield Result(
            f"P11 {name}", what, "`cmd > file`", Goal(0.8, at_least=True), speed, cpu, partial(_bare_pipe, bench, code)
        )


def _bare_pipe(bench: Bench, code: str) -> str:
    """What a pipe costs by itself, with the shortest loop that puts into a file what comes out of it."""

    def piped() -> None:
        with (
            (bench.folder / "peer.log").open("wb", buffering=0) as output,
            subprocess.Popen([sys.executable, "-I", "-S", "-c", code], stdout=subprocess.PIPE, bufsize=0) as process,
        ):
            assert process.stdout is not None
            fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, supervisor.PIPE_SIZE)
            while data := process.stdout.read(supervisor.CHUNK):
                output.write(data)

    def file() -> None:
        with (bench.folder / "peer.log").open("wb") as output:
            subprocess.run([sys.executable, "-I", "-S", "-c", code], stdout=output, check=True)

    ((wall, _),) = by_turns(timed(piped), timed(file), pairs=3)
    return f"A bare pipe of the same size, and a loop that copies from it into a file, reach {1 / percentile(wall, 0.5):.2f}."


def latency(bench: Bench) -> Iterator[Result]:
    """P12: from the command's write until the client has read it from the log, beyond what a bare pipe takes."""
    pairs = [(_supervised_latency(bench), _pipe_latency()) for _ in range(PAIRS + 1)][1:]
    added = [ours - bare for ours, bare in pairs]
    alone = f"The raw pipe's own was {percentile((bare for _, bare in pairs), 0.5):.2g} ms meanwhile."
    yield Result(
        "P12", "added latency from child to console, p99", "a raw pipe", Goal(2, "ms"), added, (), partial(str, alone)
    )


def _supervised_latency(bench: Bench) -> float:
    delays: list[float] = []
    with supervised(bench, _LATENCY) as job:
        log: int | None = None
        while (word := os.read(job.doorbell, 1)) not in (b"", b"E"):
            log = os.open(job.log, os.O_RDONLY) if log is None else log
            delays += _delays(os.read(log, 65536))
        if log is not None:
            os.close(log)
        assert word == b"E"
    return percentile(delays, 0.99)


def _pipe_latency() -> float:
    delays: list[float] = []
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", _LATENCY], stdout=subprocess.PIPE, bufsize=0) as process:
        while process.stdout is not None and (data := process.stdout.read(65536)):
            delays += _delays(data)
    return percentile(delays, 0.99)


def _delays(data: bytes) -> list[float]:
    """Milliseconds since each time stamp in ``data``."""
    now = time.monotonic()
    return [(now - written) * 1000 for (written,) in struct.iter_unpack("d", data)]


def memory(bench: Bench) -> Iterator[Result]:
    """What a supervisor keeps of the machine while its command runs, after 13 MB of log."""
    sizes = []
    for _ in range(PAIRS):
        with supervised(bench, _HOLDING) as job:
            while not job.log.exists() or job.log.stat().st_size < 200 * 65536 + 3:
                os.read(job.doorbell, 4096)
            sizes.append(pss(job.process.pid) / _MB)
    yield Result("PSS", "memory of a supervisor", "", Goal(12, "MiB"), sizes)


def pss(pid: int) -> int:
    """Bytes of memory that a process has, its share of what it shares included; 0 when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def _drain(descriptor: int) -> None:
    while os.read(descriptor, 65536):
        pass


CASES = {"P11": throughput, "P12": latency, "PSS": memory}
