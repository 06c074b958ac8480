"""The connections that httpcore2 sends requests over: they know their age, and waits end with the request.

httpcore2's own time-outs start again with each byte, so an endpoint that trickles would hold a request for
ever.
"""

import select
import socket
import ssl
import time
from collections.abc import Callable, Iterable
from contextvars import ContextVar, Token
from typing import Any, Final

import httpcore2

from flagstream.http.connecting import Addresses, Endpoint, connect
from flagstream.http.failures import HttpRefused, HttpUnavailable, reason
from flagstream.http.trust import Trust

_WRITE_SIZE: Final = 1 << 16

_exchange: ContextVar["Exchange"] = ContextVar("exchange")
"""The request under way in this thread."""


class Exchange:
    """Holds one try of a request: its time, and the state of its connection. It is a context manager in the
    thread that tries.

    Making a connection may take ``connect`` seconds, with TLS and over all addresses. After that, the request
    and its answer may take ``answer`` seconds. ``fresh``: use no kept connection.
    """

    def __init__(self, connect: float, answer: float, *, fresh: bool = False) -> None:
        self.fresh = fresh
        self.connected = False
        """Whether a connection was made for it."""
        self.answered = False
        """Whether a byte of an answer has come."""
        self.connection: Connection | None = None
        """The connection that the request was written to."""
        self._connect = connect
        self._answer = answer
        self._until = time.monotonic() + answer
        self._token: Token[Exchange] | None = None

    def __enter__(self) -> "Exchange":
        self._token = _exchange.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._token is not None, "it was entered"
        _exchange.reset(self._token)

    def failed(self) -> None:
        """Note that no answer came: other addresses go first from now on, if the connection was new."""
        if self.connected and not self.answered and self.connection is not None:
            self.connection.failed()

    def connecting(self) -> float:
        """Return until when a connection that is begun now has to be there, in monotonic seconds."""
        return time.monotonic() + self._connect

    def begin(self) -> None:
        """Note that the connection is made: the time for the answer begins."""
        self._until = time.monotonic() + self._answer

    def left(self, late: type[httpcore2.TimeoutException]) -> float:
        """Return the seconds that are left for the answer. Raises ``late`` when there are none."""
        left = self._until - time.monotonic()
        if left <= 0:
            raise late
        return left


class Network(httpcore2.NetworkBackend):
    """Makes the connections of one client of ``host``; any other host is a proxy. A connection older than
    ``oldest`` seconds takes no further request.
    """

    def __init__(
        self,
        host: str,
        addresses: Addresses,
        trust: Trust,
        oldest: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.host = host
        self.addresses = addresses
        self.trust = trust
        self.oldest = oldest
        self.clock = clock

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> "Connection":
        exchange = _exchange.get()
        exchange.connected, exchange.fresh = True, False
        try:
            return Connection(self, self.addresses.resolve(host, port), exchange.connecting())
        except HttpUnavailable as error:
            if host == self.host:
                raise
            # Its name is not shown: the variable may hold anything.
            raise HttpUnavailable(
                f"the proxy of the environment: {str(error).replace(host, 'its name')}"
            ) from None
        except httpcore2.ConnectTimeout:
            if host == self.host:
                raise
            raise HttpUnavailable("the proxy of the environment: no connection in time") from None


class Connection(httpcore2.NetworkStream):
    """A connection to the first of ``endpoints`` that accepts one, before ``until``. Making it connects."""

    def __init__(self, network: Network, endpoints: Iterable[Endpoint], until: float) -> None:
        self._network = network
        self._left = list(endpoints)
        self._until = until
        self._used = False
        self._socket, self._endpoint = self._connect()
        self._made = network.clock()

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        exchange = _exchange.get()
        try:
            self._socket.settimeout(exchange.left(httpcore2.ReadTimeout))
            data = self._socket.recv(max_bytes)
        except TimeoutError:
            raise httpcore2.ReadTimeout from None
        except OSError as error:
            raise httpcore2.ReadError(reason(error)) from None
        if data and not exchange.answered:
            exchange.answered = True
            self._network.addresses.answered(self._endpoint.address)
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._used = True
        exchange = _exchange.get()
        exchange.connection = self
        view = memoryview(buffer)
        try:
            while view:
                self._socket.settimeout(exchange.left(httpcore2.WriteTimeout))
                view = view[self._socket.send(view[:_WRITE_SIZE]) :]
        except TimeoutError:
            raise httpcore2.WriteTimeout from None
        except OSError as error:
            raise httpcore2.WriteError(reason(error)) from None

    def close(self) -> None:
        self._socket.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> "Connection":
        """Speak TLS from here on. ``ssl_context`` is ignored: the certificates that are trusted now count.

        An address that accepts connections and then stays silent counts as one that refuses: the next one is
        tried.
        """
        exchange = _exchange.get()
        context = self._network.trust.context()
        if self._used:  # a proxy's tunnel, which has its own time
            self._left, self._until = [], exchange.connecting()
        while True:
            try:
                self._handshake(context, server_hostname)
            except HttpUnavailable:
                self._network.addresses.failed(self._endpoint.address)
                if not self._left:
                    raise
                self._socket, self._endpoint = self._connect()
                self._made = self._network.clock()
            else:
                exchange.begin()
                return self

    def get_extra_info(self, info: str) -> Any:
        match info:
            case "is_readable":  # httpcore2 asks it of a connection that it kept, and closes one that is
                return _exchange.get().fresh or self._is_old() or _is_readable(self._socket)
            case "ssl_object":
                return self._socket if isinstance(self._socket, ssl.SSLSocket) else None
            case "server_addr":
                return self._endpoint.sockaddr
        return None

    def failed(self) -> None:
        """Note that nothing came over this connection: other addresses go before its own."""
        self._network.addresses.failed(self._endpoint.address)

    def _connect(self) -> tuple[socket.socket, Endpoint]:
        failed = self._network.addresses.failed
        try:
            connected, endpoint = connect(self._left, self._until, failed)
        except TimeoutError:
            raise httpcore2.ConnectTimeout from None
        self._left.remove(endpoint)
        _exchange.get().begin()
        return connected, endpoint

    def _handshake(self, context: ssl.SSLContext, host: str | None) -> None:
        left = self._until - time.monotonic()
        try:
            # A share of the time for each address that is left.
            self._socket.settimeout(max(left / (len(self._left) + 1), 0.001))
            self._socket = context.wrap_socket(self._socket, server_hostname=host)
        except ssl.SSLCertVerificationError as error:
            self._socket.close()
            self._network.trust.doubted()
            raise HttpRefused(f"{host}: {error.verify_message}") from None
        except TimeoutError:
            self._socket.close()
            raise HttpUnavailable("the other side does not begin to speak TLS") from None
        except (OSError, ValueError) as error:
            self._socket.close()
            words = reason(error) if isinstance(error, OSError) else "the host's name is not allowed"
            raise HttpUnavailable(f"no TLS: {words}") from None

    def _is_old(self) -> bool:
        return self._network.clock() - self._made > self._network.oldest


def _is_readable(sock: socket.socket) -> bool:
    """Return whether an idle connection has something to read, which means that it has ended."""
    poll = select.poll()
    try:
        poll.register(sock, select.POLLIN)
    except ValueError:  # closed
        return True
    return bool(poll.poll(0))
