"""An HTTP/1.1 proxy in front of a real server, which fails the requests that a test chooses.

The client is pointed at the proxy's address instead of the server's. Requests are handed on byte for byte,
with the ``Host`` header as the client wrote it, so a signature that covers it (AWS Signature Version 4) stays
valid.
"""

import http.client
import select
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "expect", "proxy-connection"}

# Seconds; a server that does not answer within it fails the test instead of holding it.
_UPSTREAM_TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class Answer:
    """The proxy answers by itself. With ``forward`` the server has taken the request before."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    forward: bool = False


@dataclass(frozen=True, slots=True)
class Hang:
    """No answer ever comes, until the client gives up."""

    forward: bool = False


@dataclass(frozen=True, slots=True)
class Reset:
    """The connection is reset. With ``forward`` the server has taken the request; its answer is lost."""

    forward: bool = False


Fault = Answer | Hang | Reset


@dataclass(frozen=True, slots=True)
class Seen:
    """A request that came by. ``path`` is the request's target with its query, as sent."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    fault: Fault | None


@dataclass(slots=True)
class _Rule:
    fault: Fault
    method: str | None
    path: Callable[[str], bool]
    skip: int
    times: int

    def take(self, method: str, path: str) -> bool:
        """Whether this request is to fail; counts it."""
        if self.times == 0 or (self.method or method) != method or not self.path(path):
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.times -= 1
        return True


class FaultyProxy:
    """Runs a proxy for ``server`` (``http://host:port``) at ``url``, in threads of this process.

    A context manager. All methods may be called while requests are under way.
    """

    def __init__(self, server: str) -> None:
        self.server = server
        self._rules: list[_Rule] = []
        self._seen: list[Seen] = []
        self._lock = threading.Lock()
        self._http = _Server(("127.0.0.1", 0), _Handler)
        self._http.proxy = self
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self.closing = False

    def fail(
        self,
        fault: Fault,
        method: str | None = None,
        path: Callable[[str], bool] = lambda _: True,
        *,
        nth: int = 1,
        times: int = 1,
    ) -> None:
        """Fail the ``nth`` request from now on that has this method (None: any) and whose target, with its
        query, satisfies ``path``, and the ones after it, ``times`` in all.

        Rules are asked in the order in which they were given; those after the one that applies do not see
        the request.
        """
        with self._lock:
            self._rules.append(_Rule(fault, method, path, nth - 1, times))

    def heal(self) -> None:
        """Fail nothing from now on."""
        with self._lock:
            self._rules.clear()

    @property
    def seen(self) -> list[Seen]:
        """All requests so far, in the order of their arrival."""
        with self._lock:
            return list(self._seen)

    @property
    def faults(self) -> int:
        """How many requests were failed so far."""
        return sum(seen.fault is not None for seen in self.seen)

    def __enter__(self) -> Self:
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing = True
        self._http.shutdown()
        self._http.server_close()

    def note(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Fault | None:
        """Called for every request: what becomes of it."""
        with self._lock:
            fault = next((rule.fault for rule in self._rules if rule.take(method, path)), None)
            self._seen.append(Seen(method, path, headers, body, fault))
        return fault


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    proxy: FaultyProxy

    def shutdown_request(self, request: socket.socket | tuple[bytes, socket.socket]) -> None:
        # Without the polite FIN of the inherited method, which would come before a reset.
        self.close_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that gave up is part of the test."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body of an answer are two writes: with Nagle's algorithm 40 ms apart.
    disable_nagle_algorithm = True
    server: _Server

    def handle_one_request(self) -> None:
        self.raw_requestline = self.rfile.readline(65537)
        if not self.raw_requestline or not self.parse_request():
            self.close_connection = True
            return
        # ``path`` of the base class has lost a doubled slash at its beginning.
        target = self.raw_requestline.split()[1].decode("latin-1")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self.server.proxy.note(self.command, target, dict(self.headers.items()), body)
        if fault is None:
            self._respond(*self._forward(target, body))
            return
        if fault.forward:
            self._forward(target, body)
        match fault:
            case Answer(status, headers, text):
                self._respond(status, list(headers.items()), text)
            case Hang():
                self._wait_for_the_client()
            case Reset():
                self._reset()

    def _forward(self, target: str, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        upstream = self.server.proxy.server
        connection = http.client.HTTPConnection(upstream.partition("//")[2], timeout=_UPSTREAM_TIMEOUT)
        try:
            connection.putrequest(self.command, target, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in _HOP_BY_HOP:
                    connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            # Where the server sends the client back to itself, the proxy stays in between.
            headers = [
                (
                    name,
                    value.replace(upstream, self.server.proxy.url) if name.lower() == "location" else value,
                )
                for name, value in answer.getheaders()
            ]
            return answer.status, headers, answer.read()
        finally:
            connection.close()

    def _respond(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers:
            bodyless = self.command == "HEAD" and not body
            if name.lower() not in _HOP_BY_HOP and (bodyless or name.lower() != "content-length"):
                self.send_header(name, value)
        if self.command != "HEAD" and status not in (204, 304):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _wait_for_the_client(self) -> None:
        while not self.server.proxy.closing:
            readable, _, _ = select.select([self.connection], [], [], 0.05)
            if readable:
                break
        self.close_connection = True

    def _reset(self) -> None:
        linger_no_time = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_no_time)
        self.close_connection = True
