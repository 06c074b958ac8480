"""Connections to a host that has several addresses (RFC 8305, "Happy Eyeballs").

An address that swallows packets must not use up the time in which another one would answer. So attempts
overlap: each begins a moment after the one before, and the first connection that is made wins.
"""

import errno
import os
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

from flagstream.http.failures import HttpUnavailable, reason

STAGGER: Final = 0.25
"""Seconds after which the next address is tried as well: RFC 8305, section 8. It is less if the time would
otherwise not suffice for all of them.
"""
_OPTIONS: Final = (
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    # A kept connection whose other side is gone without a word is noticed within 25 s: what remembers
    # connections on the way (NAT, load balancers) forgets idle ones, and says nothing.
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPIDLE", None), 10),
    (socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPINTVL", None), 5),
    (socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPCNT", None), 3),
)

Admit = Callable[[str, Sequence[str]], Collection[str]]
"""A function of a host and its addresses that returns those that may be used, and raises if there are
none.
"""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address of a host, as the resolver gave it."""

    family: int
    sockaddr: Any

    @property
    def address(self) -> str:
        """Return the IP address."""
        return str(self.sockaddr[0])


class Addresses:
    """The addresses of hosts: resolved at each call, in the order in which they are worth trying.

    The order remembers which address answered last, and which ones have failed since they last answered.
    Several threads use it at once.
    """

    def __init__(self, admit: Admit | None = None) -> None:
        self._admit = admit
        self._lock = threading.Lock()
        self._good: str | None = None
        self._failed: set[str] = set()

    def resolve(self, host: str, port: int) -> Sequence[Endpoint]:
        """Return the addresses of ``host``. Raises HttpUnavailable if the name is not known. The resolver
        keeps its own time-out.
        """
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            words = reason(error) if isinstance(error, OSError) else "the name is not allowed"
            raise HttpUnavailable(f"cannot resolve {host}: {words}") from None
        endpoints = {str(sockaddr[0]): Endpoint(family, sockaddr) for family, _, _, _, sockaddr in found}
        if self._admit is not None:
            allowed = self._admit(host, list(endpoints))
            endpoints = {address: one for address, one in endpoints.items() if address in allowed}
        with self._lock:
            return sorted(
                endpoints.values(), key=lambda one: (one.address in self._failed, one.address != self._good)
            )

    def answered(self, address: str) -> None:
        """Try this one first from now on."""
        with self._lock:
            self._good = address
            self._failed.discard(address)

    def failed(self, address: str) -> None:
        """Try this one last until it answers."""
        with self._lock:
            self._good = None if self._good == address else self._good
            self._failed.add(address)


def connect(
    endpoints: Sequence[Endpoint], until: float, failed: Callable[[str], None]
) -> tuple[socket.socket, Endpoint]:
    """Connect to the first of ``endpoints`` that takes a connection, before ``until`` (monotonic seconds).

    It calls ``failed`` with each address that refused. Raises TimeoutError, and HttpUnavailable if all of
    them refused.
    """
    with _Race() as race:
        left = deque(endpoints)
        begin_next = time.monotonic()
        while left or race:
            now = time.monotonic()
            if now >= until:
                raise TimeoutError
            if left and (now >= begin_next or not race):
                race.begin(left.popleft(), failed)
                begin_next = now + min(STAGGER, (until - now) / (len(left) + 1))
                continue
            winner = race.wait(min(until, begin_next if left else until) - now, failed)
            if winner is not None:
                return winner
        raise HttpUnavailable(race.refusal or "no address")


class _Race:
    """Attempts to connect that are under way. At the end, the ones that are left are given up."""

    def __init__(self) -> None:
        self.refusal = ""
        self._selector = selectors.DefaultSelector()
        self._running: dict[socket.socket, Endpoint] = {}

    def __enter__(self) -> "_Race":
        return self

    def __exit__(self, *_: object) -> None:
        self._selector.close()
        for sock in self._running:
            sock.close()

    def __len__(self) -> int:
        return len(self._running)

    def begin(self, endpoint: Endpoint, failed: Callable[[str], None]) -> None:
        try:
            sock = socket.socket(endpoint.family, socket.SOCK_STREAM)
        except OSError as error:  # no IPv6 on this machine, no file descriptor left
            self.refusal = reason(error)
            failed(endpoint.address)
            return
        sock.setblocking(False)
        code = sock.connect_ex(endpoint.sockaddr)
        if code in (0, errno.EINPROGRESS):
            self._running[sock] = endpoint
            self._selector.register(sock, selectors.EVENT_WRITE)
        else:
            self._lost(sock, endpoint, code, failed)

    def wait(self, seconds: float, failed: Callable[[str], None]) -> tuple[socket.socket, Endpoint] | None:
        """Return the first connection that is made within ``seconds``, or None, also when one was refused."""
        for key, _ in self._selector.select(max(seconds, 0)):
            sock = key.fileobj
            assert isinstance(sock, socket.socket)
            self._selector.unregister(sock)
            endpoint = self._running.pop(sock)
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code == 0:
                for level, option, value in _OPTIONS:
                    if option is not None:
                        sock.setsockopt(level, option, value)
                return sock, endpoint
            self._lost(sock, endpoint, code, failed)
        return None

    def _lost(
        self, sock: socket.socket, endpoint: Endpoint, code: int, failed: Callable[[str], None]
    ) -> None:
        sock.close()
        self.refusal = os.strerror(code)
        failed(endpoint.address)
