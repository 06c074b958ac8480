"""Runs a webhook's receiver: a real HTTP server in threads that answers as a test says."""

import gzip
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it came. ``headers`` keeps order and repetitions; ``body`` is as sent."""

    method: str
    path: str
    headers: Sequence[tuple[str, str]]
    body: bytes
    connection: int
    """Number of the connection, from 0 on, in the order in which they were made."""

    def header(self, name: str) -> str | None:
        """The header's value; fails when it was sent twice."""
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        assert len(values) <= 1, f"{name} came {len(values)} times"
        return values[0] if values else None

    @property
    def id(self) -> str:
        """Return the header webhook-id."""
        return self.header("webhook-id") or ""

    @property
    def content(self) -> bytes:
        """Return the body without its compression."""
        return gzip.decompress(self.body) if self.header("Content-Encoding") == "gzip" else self.body

    @property
    def events(self) -> list[Any]:
        """The events of the body, as JSON says them."""
        events: list[Any] = json.loads(self.content)["events"]
        return events


@dataclass(frozen=True, slots=True)
class Reply:
    """Describes an answer with a body."""

    status: int = 204
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Hang:
    """No answer, until the sender gives up or the test ends."""


@dataclass(frozen=True, slots=True)
class Trickle:
    """A byte of an answer every 50 ms, for ever: no single wait is long."""


@dataclass(frozen=True, slots=True)
class CloseHalfWay:
    """``sent`` goes out, then the connection is reset: nothing at all, or the start of an answer."""

    sent: bytes = b""


Answer = Reply | Hang | Trickle | CloseHalfWay
Choose = Callable[[Request], Answer]


class Receiver:
    """What came and what is answered. ``answer`` may be replaced at any time; by default all is accepted."""

    def __init__(self) -> None:
        self.answer: Choose = lambda request: Reply()
        self.requests: list[Request] = []
        self.accepted: list[Request] = []
        """Those that were answered with 2xx."""
        self.url = ""
        self._connections = 0
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._handled = threading.Condition()

    @property
    def connections(self) -> int:
        """How many connections were made so far."""
        return self._connections

    @property
    def port(self) -> int:
        """Return the port where it listens."""
        return int(self.url.rpartition(":")[2].partition("/")[0])

    def plan(self, *answers: Answer) -> None:
        """Answer the next requests like this, in turn, and accept all after them."""
        left = list(answers)
        lock = threading.Lock()

        def choose(request: Request) -> Answer:
            with lock:
                return left.pop(0) if left else Reply()

        self.answer = choose

    def await_requests(self, count: int, timeout: float = 40.0) -> None:
        """Wait until so many have come; fails after ``timeout`` seconds."""
        with self._handled:
            assert self._handled.wait_for(lambda: len(self.requests) >= count, timeout), self.requests

    def values(self) -> list[bytes]:
        """All events that were accepted, as compact JSON."""
        return [
            json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode()
            for request in self.accepted
            for event in request.events
        ]

    def took(self, request: Request) -> Answer:
        """Records a request and decides its answer."""
        with self._lock:
            answer = self.answer(request)
            if isinstance(answer, Reply) and 200 <= answer.status <= 299:
                self.accepted.append(request)
        with self._handled:
            self.requests.append(request)
            self._handled.notify_all()
        return answer

    def connected(self) -> int:
        """The number of a connection that was just made."""
        with self._lock:
            self._connections += 1
            return self._connections - 1

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for the end of the test, at most ``seconds``; whether it came."""
        return self._ended.wait(seconds)

    def end(self) -> None:
        """Let go of all that hangs."""
        self._ended.set()


@contextmanager
def receiving(host: str = "127.0.0.1", port: int = 0) -> Iterator[Receiver]:
    """A receiver on this port of ``host``; 0 is a free one."""
    receiver = Receiver()

    class Handler(_Handler):
        to = receiver

    class Server(ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        daemon_threads = True
        block_on_close = False
        request_queue_size = 64

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Senders that give up are what many tests are about."""

    with Server((host, port), Handler) as server:
        receiver.url = f"http://{f'[{host}]' if ':' in host else host}:{server.server_port}/hook"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield receiver
        finally:
            receiver.end()
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    to: Receiver
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.number = self.to.connected()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        answer = self.to.took(Request(self.command, self.path, list(self.headers.items()), body, self.number))
        match answer:
            case Reply():
                self._reply(answer)
            case Hang():
                self.to.wait()
                self.close_connection = True
            case Trickle():
                self._trickle()
            case CloseHalfWay():
                self._reset(answer.sent)

    do_GET = do_PUT = do_DELETE = do_HEAD = do_POST

    def log_message(self, format: str, *args: Any) -> None:
        """Write nothing to standard error."""

    def _reply(self, answer: Reply) -> None:
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.status != 204:
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def _trickle(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while not self.to.wait(0.05):
            self.wfile.write(b"x")
            self.wfile.flush()
        self.close_connection = True

    def _reset(self, sent: bytes) -> None:
        self.wfile.write(sent)
        self.wfile.flush()
        if sent:
            # a reset overtakes what was sent; the sender is to see the beginning first
            time.sleep(0.05)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()
