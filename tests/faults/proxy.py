"""A fault proxy in front of a real tracking server: what networks and servers do to a client, on order."""

from __future__ import annotations

import http.client
import http.server
import re
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

_RESET: Final = struct.pack("ii", 1, 0)  # socket(7): SO_LINGER with 0 seconds makes close() send RST


@dataclass
class Fault:
    """What to do to the requests that match.

    Attributes:
        kind: ``hang``, ``reset`` (before the server hears of it), ``reset_after`` (the server has done it, the answer
            is lost), ``garbage``, ``truncated``, ``slow`` (one byte a second) or a status code such as ``503``.
        route: Pattern of ``METHOD /path``.
        times: How often; None: for ever.
    """

    kind: str
    route: str = ""
    times: int | None = None

    def take(self, route: str) -> bool:
        """Whether this request is one of them; counts it."""
        if self.times == 0 or not re.search(self.route, route):
            return False
        if self.times is not None:
            self.times -= 1
        return True


@dataclass
class Proxy:
    """Listens on loopback while it is open; ``faults`` may be changed at any time."""

    upstream: int
    faults: list[Fault] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    on_request: Callable[[str], None] = lambda _route: None

    def __post_init__(self) -> None:
        self._guard = threading.Lock()
        self._closing = threading.Event()
        self._server: http.server.ThreadingHTTPServer | None = None
        self.port = 0
        self.open()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def open(self) -> None:
        """Listen, on the same port as before."""
        self._closing.clear()
        self._server = _Server(("127.0.0.1", self.port), _handler(self))
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        """Refuse connections from now on, and end those that hang."""
        self._closing.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def fault_for(self, route: str) -> str | None:
        with self._guard:
            self.seen.append(route)
            kind = next((fault.kind for fault in self.faults if fault.take(route)), None)
        self.on_request(route)
        return kind

    def hang(self, seconds: float = 3600) -> None:
        """Say nothing for a while, or until the proxy closes."""
        self._closing.wait(seconds)


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    allow_reuse_address = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hung up is what the tests are about."""


def _handler(proxy: Proxy) -> type[http.server.BaseHTTPRequestHandler]:  # noqa: C901 - a class, one method a fault
    class Handler(http.server.BaseHTTPRequestHandler):
        def _serve(self) -> None:
            self.close_connection = True
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Transfer-Encoding") == "chunked":
                body = _chunks(self)
            kind = proxy.fault_for(f"{self.command} {self.path}")
            if kind == "hang":
                proxy.hang()
            elif kind == "reset":
                self._reset()
            elif kind == "garbage":
                self.wfile.write(b"\x00\xffthis is not HTTP\r\n\r\n" * 9)
            elif kind is not None and kind.isdigit():
                self._answer(int(kind), [("Content-Type", "text/html")], b"<html>proxy says no</html>")
            else:
                self._forward(body, kind)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _serve  # noqa: N815 - the base class's names

        def _forward(self, body: bytes, kind: str | None) -> None:
            upstream = http.client.HTTPConnection("127.0.0.1", proxy.upstream, timeout=60)
            headers = {
                name: value for name, value in self.headers.items() if name.lower() not in ("transfer-encoding", "host")
            }
            upstream.request(self.command, self.path, body, headers)
            answer = upstream.getresponse()
            content = answer.read()
            upstream.close()
            if kind == "reset_after":
                self._reset()
            elif kind == "truncated":
                self._answer(answer.status, answer.getheaders(), content, send=content[: len(content) // 2])
            elif kind == "slow":
                for byte in b"HTTP/1.1 200 OK\r\n" + content:
                    self.wfile.write(bytes((byte,)))
                    self.wfile.flush()
                    proxy.hang(1)
            else:
                self._answer(answer.status, answer.getheaders(), content)

        def _answer(
            self, status: int, headers: list[tuple[str, str]], content: bytes, *, send: bytes | None = None
        ) -> None:
            self.send_response(status)
            for name, value in headers:
                if name.lower() not in ("transfer-encoding", "content-length", "connection", "server", "date"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(content if send is None else send)

        def _reset(self) -> None:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.wfile.close()
            self.rfile.close()
            self.connection.close()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            """Say nothing."""

    return Handler


def _chunks(handler: http.server.BaseHTTPRequestHandler) -> bytes:
    body = bytearray()
    while size := int(handler.rfile.readline(), 16):
        body += handler.rfile.read(size)
        handler.rfile.readline()
    handler.rfile.readline()
    return bytes(body)
