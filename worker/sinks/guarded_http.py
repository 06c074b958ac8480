"""HTTP requests to one address that somebody else chose: never into our own network, never without bound.

httpcore is used directly, not through httpx: it takes a network backend, and has none of the conveniences
that would have to be turned off here (proxies and credentials from the environment, redirects, cookies).
"""

import ipaddress
import socket
import ssl
import time
from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from urllib.parse import unquote

import httpcore
import httpx

from worker.errors import SinkRefused, SinkUnavailable

_WRITE_SIZE = 1 << 16
_ANSWER_READ = 1 << 16
"""Bytes of an answer's body that are read so that its connection can be used again; nobody looks at them."""

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""RFC 6052: the last four bytes are an IPv4 address that a gateway connects to."""

_deadline: ContextVar[float] = ContextVar("deadline")
"""When the request under way in this thread has to be over, on the monotonic clock. httpcore's own time-outs
begin anew with each byte, so an endpoint that trickles would hold a delivery for ever.
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """What an endpoint answered."""

    status: int
    retry_after: str | None


class GuardedClient:
    """POSTs to one URL. Connections are kept and shared by all threads.

    Every time a connection is made the host's name is resolved and the addresses are judged: only those in
    the public Internet are used unless ``allow_private``. ``connect_timeout`` bounds the attempt at each
    address, ``timeout`` a request as a whole, both in seconds; the resolver keeps its own time-out.
    """

    def __init__(self, url: str, *, allow_private: bool, connect_timeout: float, timeout: float) -> None:
        parsed = httpx.URL(url)  # knows about international host names
        self.shown = f"{parsed.scheme}://{parsed.netloc.decode('ascii')}"
        """Scheme, host and port: user, path and query of a webhook are often its secret."""
        self._host = parsed.raw_host.decode("ascii")
        self._port = parsed.port or (443 if parsed.scheme == "https" else 80)
        self._authorization = _basic(parsed.userinfo)
        self._url = httpcore.URL(
            scheme=parsed.raw_scheme, host=parsed.raw_host, port=parsed.port, target=parsed.raw_path
        )
        self._host_header = parsed.netloc
        self._timeout = timeout
        self._timeouts = {"connect": connect_timeout, "read": timeout, "write": timeout, "pool": timeout}
        self._tls = httpx.create_ssl_context() if parsed.scheme == "https" else None
        self._network = _GuardedNetwork(allow_private)
        # One connection a partition is what it comes to; the engine's threads are the bound.
        self._pool = httpcore.ConnectionPool(
            ssl_context=self._tls, max_connections=None, network_backend=self._network
        )

    def post(self, headers: Iterable[tuple[str, str]], body: bytes) -> Answer:
        """Send ``body``. An answer counts once its head is there.

        Raises SinkRefused for an address that is not allowed or a certificate that is not trusted,
        SinkUnavailable when there is no answer in time.
        """
        all_headers = [
            (b"Host", self._host_header),
            *self._authorization,
            *((name.encode("ascii"), value.encode("latin-1")) for name, value in headers),
            (b"Content-Length", str(len(body)).encode()),
        ]
        with (
            self._bounded(),
            self._pool.stream(
                "POST",
                self._url,
                headers=all_headers,
                content=body,
                extensions={"timeout": self._timeouts},
            ) as response,
        ):
            _read_some(response)
            retry_after = next((v for name, v in response.headers if name.lower() == b"retry-after"), None)
            return Answer(response.status, retry_after.decode("latin-1") if retry_after is not None else None)

    def resolve(self) -> Sequence[str]:
        """The host's addresses that may be used. Raises SinkRefused when there are none but forbidden ones,
        SinkUnavailable when its name is not known.
        """
        with self._bounded():
            return self._network.resolve(self._host, self._port)

    def connect(self) -> None:
        """Make a connection, with TLS where the URL says so, and close it; the endpoint sees no request."""
        with self._bounded():
            stream = self._network.connect_tcp(self._host, self._port, self._timeouts["connect"])
            try:
                if self._tls is not None:
                    stream = stream.start_tls(self._tls, self._host, self._timeouts["connect"])
            finally:
                stream.close()

    def close(self) -> None:
        self._pool.close()

    @contextmanager
    def _bounded(self) -> Iterator[None]:
        """Sets the deadline, and turns httpcore's errors into the SinkError that says who must act."""
        token = _deadline.set(time.monotonic() + self._timeout)
        try:
            yield
        except httpcore.TimeoutException as error:
            raise SinkUnavailable(f"{self.shown}: {self._missed(error)}") from None
        except httpcore.NetworkError as error:
            raise SinkUnavailable(f"{self.shown}: {str(error) or 'connection lost'}") from error
        except httpcore.ProtocolError:
            # Its text may hold what the endpoint sent, which may be our own request with its secrets.
            raise SinkUnavailable(f"{self.shown}: closed half-way, or does not speak HTTP") from None
        finally:
            _deadline.reset(token)

    def _missed(self, error: httpcore.TimeoutException) -> str:
        if isinstance(error, httpcore.ConnectTimeout):
            return (
                f"no connection within {min(self._timeouts['connect'], self._timeout):g} s (connect_timeout)"
            )
        what = "the request could not be sent" if isinstance(error, httpcore.WriteTimeout) else "no answer"
        return f"{what} within {self._timeout:g} s (timeout)"


class _GuardedNetwork(httpcore.NetworkBackend):
    def __init__(self, allow_private: bool) -> None:
        self._allow_private = allow_private
        self._plain = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        failure: httpcore.NetworkError | httpcore.ConnectTimeout | None = None
        for address in self.resolve(host, port):
            try:
                # The address that was judged, not the name: a second look-up might answer otherwise.
                stream = self._plain.connect_tcp(address, port, _left(timeout, httpcore.ConnectTimeout))
                return _BoundedStream(stream)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        assert failure is not None
        raise failure

    def resolve(self, host: str, port: int) -> Sequence[str]:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (socket.gaierror, UnicodeError) as error:
            raise httpcore.ConnectError(f"cannot resolve {host}: {error}") from error
        addresses = list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))
        allowed = [one for one in addresses if self._allow_private or is_public(one)]
        if not allowed:
            shown = host if addresses == [host] else f"{host} ({', '.join(addresses)})"
            raise SinkRefused(
                f"{shown} is no public address; set allow_private_addresses = true if it is meant",
                denied=True,
            )
        return allowed


class _BoundedStream(httpcore.NetworkStream):
    """A connection on which every wait ends at the deadline of the request under way."""

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for at in range(0, len(buffer), _WRITE_SIZE):
            piece = buffer[at : at + _WRITE_SIZE]
            self._stream.write(piece, _left(timeout, httpcore.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        try:
            return _BoundedStream(
                self._stream.start_tls(ssl_context, server_hostname, _left(timeout, httpcore.ConnectTimeout))
            )
        except httpcore.ConnectError as error:
            if isinstance(error.__cause__, ssl.SSLCertVerificationError):
                raise SinkRefused(
                    f"{server_hostname}: {error.__cause__.verify_message}", denied=True
                ) from error
            raise

    def get_extra_info(self, info: str) -> object:
        return self._stream.get_extra_info(info)


def is_public(address: str) -> bool:
    """Whether an address is one of the public Internet; an IPv6 one that leads to IPv4 is judged by that."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if ip in _NAT64:
            inner = ipaddress.IPv4Address(ip.packed[-4:])
        if inner is not None:
            return is_public(str(inner))
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)


def _left(timeout: float | None, kind: type[httpcore.TimeoutException]) -> float:
    left = _deadline.get() - time.monotonic()
    if left <= 0:
        raise kind("the request took too long")
    return left if timeout is None else min(left, timeout)


def _read_some(response: httpcore.Response) -> None:
    """Read a short body to its end; what is long, broken or late costs the connection, not the answer."""
    size = 0
    with suppress(httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException):
        for piece in response.iter_stream():
            size += len(piece)
            if size > _ANSWER_READ:
                return


def _basic(userinfo: bytes) -> list[tuple[bytes, bytes]]:
    """The header for ``user:password@`` in the URL, as GO Feature Flag's client sends it."""
    if not userinfo:
        return []
    user, _, password = userinfo.decode("ascii").partition(":")
    return [(b"Authorization", b"Basic " + b64encode(f"{unquote(user)}:{unquote(password)}".encode()))]
