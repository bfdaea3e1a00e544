"""Stay with one container from its start to its end: the command that a supervisor runs for the docker target.

Run by path in the run's folder, ``python -I -S attendant.py SOCKET NAME GRACE``, when the container NAME has been
created. Standard library only, for it starts with every job and lives as long. What it is told:

::

    JOB:NAME=value      environment: a variable of the job; JOB-COMMAND, its shell command. They go into the container
                        by its standard input, so that no secret is on disk, in ``docker inspect`` or in a process list
    SIGTERM, SIGINT     end the job: TERM to all its processes, after GRACE seconds KILL

It passes on what the container writes, byte for byte, and leaves ``container.json``: the end as the engine tells it
(``exit_code, signal, oom``, ``memory_limit`` and ``memory_peak`` in bytes, ``reason`` and ``message`` if it was no end
of the command's own). Then it asks for the container's removal, for which whoever records the run's end waits. The exit
code is the command's.

The engine's API: https://docs.docker.com/reference/api/engine/ (attach, start, kill, wait, inspect, remove).
"""

# pathlib would cost more start-up time than the rest of this file:
# ruff: noqa: PTH104, PTH123
from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PREFIX = "JOB:"
"""Before the name of each of the job's variables in our environment."""
COMMAND = "JOB-COMMAND"
"""The variable with the job's command."""
ENTRY = r"""exec 3>&2 2>&1
eval "$(cat)"
exec </dev/null
command -v bash >/dev/null && shell=bash || shell=sh
exec 2>/dev/null
(exec $shell -c "$1" 2>&1 3>&-)
code=$? count=0
while kill -0 -1 && { [ $code = 143 ] || [ $count -lt 40 ]; }; do
  sleep 0.05 || break
  count=$((count + 1))
done
[ $code = 0 ] || for file in memory.peak memory.events memory/memory.max_usage_in_bytes memory/memory.oom_control; do
  [ ! -r "/sys/fs/cgroup/$file" ] || while read -r name value; do
    echo "mlflow_azure: $file $name $value" >&3
  done <"/sys/fs/cgroup/$file"
done
exit $code
"""
"""The container's first process, as a script of its shell: it reads the variables and the command, makes one stream of
standard output and error, lets descendants of an ended command end (for 2 seconds; after a TERM until they are killed),
and when the command has failed it says on the other stream what the kernel counted (control groups version 2 and 1)."""
LOST = 125
"""Our exit code when nobody knows the command's."""

_RETURN_SECONDS = 15.0
"""For how long an engine that went away is waited for."""
_CHUNK = 256 * 1024
_HEADER = 8
"""Bytes before each frame of an attached stream: its kind, three zeros, its length."""
_STDERR = 2
_FACT = b"mlflow_azure: "
_DEADLY = {signal.SIGILL, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM}
_END_ALL = ["/bin/sh", "-c", "kill -TERM -1"]
"""Reaches all but the first process, which a signal without a handler does not reach and which waits for the others."""


class Refused(Exception):
    """The engine answered with an error."""


class Container:
    """One container, by its name. ``http.client`` would cost more start-up time than all of this file."""

    def __init__(self, address: str, name: str) -> None:
        self.address = address
        self.name = name

    def ask(self, method: str, what: str, body: Any = None, timeout: float | None = 60.0) -> Any:
        """One request about the container, or about ``what`` itself if it is a whole path; its answer, if it has one.

        Raises:
            Refused: The engine says no.
            OSError: It does not answer.
        """
        with self.send(method, what, body, timeout) as connection:
            answer = b""
            while piece := connection.recv(_CHUNK):
                answer += piece
        head, _, content = answer.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/"):
            raise ConnectionResetError("the engine hung up")
        if int(head.split(b" ", 2)[1]) >= 400:
            raise Refused(_message(content))
        return json.loads(content) if content.strip() else None

    def send(self, method: str, what: str, body: Any = None, timeout: float | None = 60.0) -> socket.socket:
        """A request whose answer nobody has read yet; in HTTP/1.0, whose answers end when the engine hangs up.

        Raises:
            OSError: There is no engine.
        """
        path = what if what.startswith("/exec/") else f"/containers/{self.name}{what}"
        content = b"" if body is None else json.dumps(body).encode()
        kind = "" if body is None else "Content-Type: application/json\r\n"
        head = f"{method} {path} HTTP/1.0\r\nHost: docker\r\n{kind}Content-Length: {len(content)}\r\n\r\n"
        connection = self.connect(timeout)
        try:
            connection.sendall(head.encode() + content)
        except OSError:
            connection.close()
            raise
        return connection

    def connect(self, timeout: float | None) -> socket.socket:
        """A connection to the engine's socket, or by TCP to one of this machine.

        Raises:
            OSError: There is no engine.
        """
        if not self.address.startswith("/"):
            host, _, port = self.address.rpartition(":")
            return socket.create_connection((host, int(port)), timeout)
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(timeout)
        try:
            connection.connect(self.address)
        except OSError:
            connection.close()
            raise
        return connection

    def attach(self) -> socket.socket:
        """A stream of what it writes, that takes what it reads."""
        stream = self.connect(None)
        path = f"/containers/{self.name}/attach?stream=1&stdin=1&stdout=1&stderr=1"
        upgrade = "Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0"
        request = f"POST {path} HTTP/1.1\r\nHost: docker\r\n{upgrade}\r\n\r\n"
        stream.sendall(request.encode())
        head = b""
        while not head.endswith(b"\r\n\r\n"):  # byte by byte: what comes after the head is the container's
            piece = stream.recv(1)
            if not piece:
                raise ConnectionResetError("the engine hung up")
            head += piece
        if head.split(b" ", 2)[1] not in (b"101", b"200"):
            raise Refused(_message(stream.recv(65536)))
        return stream


class Attendant:
    """Runs one container to its end."""

    def __init__(self, container: Container, grace: float) -> None:
        self.container = container
        self.grace = grace
        self.deadline: float | None = None
        self.frames = Frames()
        self.wakeup = _catch_signals()

    def run(self) -> int:
        """Start it, stay, remove it; the exit code."""
        try:
            stream = self.container.attach()
            self.container.ask("POST", "/start")
        except (Refused, OSError) as error:
            self.finish({"reason": "start_failed", "message": " ".join(str(error).split())})
            return LOST
        try:
            self.follow(stream)
        finally:
            stream.close()
        end = self.learn_end()
        self.finish(end)
        code: int = end.get("exit_code", LOST)
        return code

    def follow(self, stream: socket.socket) -> None:
        """Give it its variables and pass on what it writes, until it hangs up."""
        pending = memoryview(_input_script(os.environb))
        while True:
            wait = None if self.deadline is None else max(0.0, self.deadline - time.monotonic())
            writers = [stream.fileno()] if pending else []
            readable, writable, _ = select.select([stream.fileno(), self.wakeup], writers, [], wait)
            if self.wakeup in readable:
                os.read(self.wakeup, 4096)
                self.end()
            if self.deadline is not None and time.monotonic() >= self.deadline:
                self.deadline = time.monotonic() + self.grace
                self.kill()
            if writable:
                try:
                    pending = pending[stream.send(pending) :]
                    if not pending:
                        stream.shutdown(socket.SHUT_WR)
                except OSError:  # it has ended without reading
                    pending = memoryview(b"")
            if stream.fileno() in readable:
                try:
                    data = stream.recv(_CHUNK)
                except ConnectionResetError:
                    data = b""
                if not data:
                    return
                self.frames.pass_on(data)

    def end(self) -> None:
        """Somebody wants its end: ask all its processes, once."""
        if self.deadline is not None:
            return
        self.deadline = time.monotonic() + self.grace
        try:
            made = self.container.ask("POST", "/exec", {"Cmd": _END_ALL})
            self.container.ask("POST", f"/exec/{made['Id']}/start", {"Detach": True})
        except (Refused, OSError):
            pass  # it has ended, or will be killed

    def kill(self) -> None:
        """Its time is over."""
        with contextlib.suppress(Refused, OSError):  # it has ended, or the stream will tell
            self.container.ask("POST", "/kill")

    def learn_end(self) -> dict[str, Any]:
        """What the engine knows of the end, once it knows it."""
        patience, went_away = time.monotonic() + _RETURN_SECONDS, False
        while True:
            try:
                if not went_away:
                    self.container.ask("POST", "/wait", timeout=None)
                found = self.container.ask("GET", "/json")
                break
            except OSError:
                went_away = True
                if time.monotonic() >= patience:
                    return {"reason": "lost", "message": "the docker engine went away while the job ran"}
                time.sleep(0.1)
            except Refused as error:
                return {"reason": "lost", "message": f"the container is gone: {error}"}
        state = found["State"]
        end = {
            "exit_code": state["ExitCode"],
            "oom": state["OOMKilled"] or self.frames.has_seen_oom(),
            "memory_limit": found["HostConfig"]["Memory"] or None,
            "memory_peak": self.frames.memory_peak(),
        }
        number = state["ExitCode"] - 128
        if number in _DEADLY:  # a shell's way to say so, and there is a shell in every container of ours
            end |= {"signal": number, "reason": "signal"}
        if went_away:
            return {**end, "reason": "lost", "message": "the docker engine was stopped or restarted while the job ran"}
        if state["Error"]:
            return {**end, "message": state["Error"]}
        return end

    def finish(self, end: dict[str, Any]) -> None:
        """Write its end down, and let the engine remove it while that is recorded: it takes a tenth of a short run."""
        descriptor = os.open("container.json.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with open(descriptor, "w", encoding="utf-8") as stream:
            json.dump(end, stream)
        os.rename("container.json.new", "container.json")
        with contextlib.suppress(OSError):  # the marker in the journal stays until somebody has seen it removed
            self.container.send("DELETE", "?force=1&v=1").close()


class Frames:
    """Takes the frames of an attached stream apart: what is the log's, and what our entry script says of the end."""

    def __init__(self) -> None:
        self.kind = self.left = 0
        self.header = b""
        self.facts = b""

    def pass_on(self, data: bytes) -> None:
        """Write what belongs to the log to our standard output."""
        view = memoryview(data)
        while view:
            if self.left == 0:
                need = _HEADER - len(self.header)
                self.header += bytes(view[:need])
                view = view[need:]
                if len(self.header) < _HEADER:
                    return
                self.kind, self.left, self.header = self.header[0], int.from_bytes(self.header[4:], "big"), b""
                continue
            piece = view[: self.left]
            self.left -= len(piece)
            view = view[len(piece) :]
            # An image's own entry point may write to standard error before our script does.
            if self.kind == _STDERR and (self.facts or _FACT.startswith(piece[: len(_FACT)].tobytes())):
                self.facts += bytes(piece)
                continue
            while piece:
                piece = piece[os.write(1, piece) :]

    def memory_peak(self) -> int | None:
        """The most memory that the container had, bytes; None when its kernel does not say."""
        return self._fact("memory.peak") or self._fact("memory/memory.max_usage_in_bytes")

    def has_seen_oom(self) -> bool:
        """Whether the kernel killed one of its processes for want of memory."""
        return bool(self._fact("memory.events oom_kill") or self._fact("memory/memory.oom_control oom_kill"))

    def _fact(self, name: str) -> int | None:
        for line in self.facts.decode("utf-8", "replace").splitlines():
            key, _, value = line.strip().rpartition(" ")
            if key.strip() == f"mlflow_azure: {name}" and value.isdigit():
                return int(value)
        return None


def _input_script(environ: Any) -> bytes:
    """A shell script that sets the job's variables and, as its first argument, the command; values verbatim."""
    prefix = PREFIX.encode()
    lines = [
        b"export %s=%s\n" % (name[len(prefix) :], _quoted(value))
        for name, value in environ.items()
        if name.startswith(prefix)
    ]
    return b"".join(lines) + b"set -- " + _quoted(environ[COMMAND.encode()]) + b"\n"


def _quoted(value: bytes) -> bytes:
    return b"'" + value.replace(b"'", b"'\\''") + b"'"


def _catch_signals() -> int:
    wakeup, wakeup_end = os.pipe()
    os.set_blocking(wakeup_end, False)
    signal.set_wakeup_fd(wakeup_end, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    return wakeup


def _message(content: bytes) -> str:
    text = content.decode("utf-8", "replace")
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return text.strip() or "the engine refused"


if __name__ == "__main__":
    _address, _name, _grace = sys.argv[1:]
    os._exit(Attendant(Container(_address, _name), float(_grace)).run())
