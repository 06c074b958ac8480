"""Requests to one host, with connections that are kept and renewed."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from ssl import PROTOCOL_TLS_CLIENT, SSLContext
from typing import Final

import httpcore2

from flagstream.http.address import Address
from flagstream.http.connecting import Addresses, Admit
from flagstream.http.failures import HttpError, HttpRefused, HttpUnavailable, phrase
from flagstream.http.network import Exchange, Network
from flagstream.http.proxies import proxy_for
from flagstream.http.response import Response
from flagstream.http.trust import Trust

# Whatever the level of the log: at debug httpcore2 quotes the headers of answers, which may quote ours.
logging.getLogger("httpcore2").setLevel(logging.WARNING)

IDLE_SECONDS: Final = 30.0
"""A connection that was idle for so long is replaced. Servers and gateways (AWS 60 s, nginx 75 s, Azure 240
s) close idle connections, some of them silently.
"""
OLDEST_SECONDS: Final = 300.0
"""An older connection is replaced, so that the client finds a host that moved (DNS)."""

Headers = Sequence[tuple[str, str]]


class HttpClient:
    """Sends requests to the host of ``address``. Several threads use it at once.

    ``connect_timeout`` bounds making a connection, over all addresses of the host; ``timeout`` bounds the
    time from then to the end of the answer; both in seconds. ``names`` are the names of the two settings in
    messages. ``admit`` chooses among the host's addresses. ``proxies`` says whether the proxies of the
    environment are used, ``keep`` whether connections are kept for the next request. The client follows no
    redirects and keeps no cookies: headers meant for one server must not reach another. Making a client
    raises nothing and touches nothing.
    """

    def __init__(
        self,
        address: Address,
        *,
        connect_timeout: float,
        timeout: float,
        names: tuple[str, str] = ("timeout", "timeout"),
        admit: Admit | None = None,
        proxies: bool = True,
        keep: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._address = address
        self._connect_timeout = connect_timeout
        self._timeout = timeout
        self._names = names
        self._proxies = proxies
        self._keep = keep
        self._network = Network(address.host, Addresses(admit), Trust(), OLDEST_SECONDS, clock)
        self._lock = threading.Lock()
        self._pool: httpcore2.ConnectionPool | None = None
        self._closed = False

    @contextmanager
    def request(
        self, method: str, target: str, headers: Headers, body: bytes | None = None, *, fresh: bool = False
    ) -> Iterator[Response]:
        """Send a request, and give its answer to the body of the ``with`` statement.

        A kept connection may have ended silently. So if it fails before any byte of an answer, the client
        closes all kept connections and sends the request again over a new one, even if it is a POST.
        ``fresh`` asks for a new connection at once. Raises HttpUnavailable and HttpRefused, also while the
        answer is read.
        """
        request = self._made(method, target, headers, body)
        exchange = Exchange(self._connect_timeout, self._timeout, fresh=fresh)
        repeated = False
        try:
            response = self._send(request, exchange)
        except HttpUnavailable as error:
            if exchange.connected or exchange.answered or self._closed:
                raise
            repeated = error.sent
            exchange = Exchange(self._connect_timeout, self._timeout, fresh=True)
            try:
                response = self._send(request, exchange)
            except HttpError as again:
                again.sent = again.sent or repeated
                raise
        with exchange:
            try:
                yield Response(response, exchange, self._translated, repeated=repeated)
            finally:
                response.close()

    def resolve(self) -> Sequence[str]:
        """Return the addresses of the host that may be used, the ones to try first at the front."""
        with self._translated():
            found = self._network.addresses.resolve(self._address.host, self._address.port)
            return [one.address for one in found]

    def connect(self) -> None:
        """Make a connection, with TLS where the address says so, and close it; the host sees no request."""
        address = self._address
        with self._translated(), Exchange(self._connect_timeout, self._timeout):
            stream = self._network.connect_tcp(address.host, address.port)
            try:
                if address.scheme == "https":
                    stream.start_tls(self._network.trust.context(), address.host)
            finally:
                stream.close()

    def close(self) -> None:
        """Close the connections. A request that is under way fails, and is not sent again."""
        with self._lock:
            self._closed = True
            if self._pool is not None:
                self._pool.close()

    def _send(self, request: httpcore2.Request, exchange: Exchange) -> httpcore2.Response:
        try:
            with exchange, self._translated():
                try:
                    return self._opened().handle_request(request)
                except Exception:
                    exchange.failed()
                    raise
        except HttpUnavailable as error:
            error.sent = exchange.connection is not None
            raise

    def _made(self, method: str, target: str, headers: Headers, body: bytes | None) -> httpcore2.Request:
        address = self._address
        given = {name.lower() for name, _ in headers}
        own = [("Host", address.authority), ("Authorization", address.authorization)]
        all_headers = [(name, value) for name, value in own if value and name.lower() not in given]
        all_headers += headers
        if body is not None:
            all_headers.append(("Content-Length", str(len(body))))
        try:
            encoded = [(name.encode("ascii"), value.encode("latin-1")) for name, value in all_headers]
        except UnicodeEncodeError:
            raise HttpRefused(UNSENDABLE) from None
        url = httpcore2.URL(
            scheme=address.scheme.encode(),
            host=address.host.encode(),
            port=None if address.default_port else address.port,
            target=target.encode("ascii"),
        )
        return httpcore2.Request(method, url, headers=encoded, content=body)

    def _opened(self) -> httpcore2.ConnectionPool:
        with self._lock:
            if self._pool is None:
                proxy = proxy_for(self._address) if self._proxies else None
                self._pool = httpcore2.ConnectionPool(
                    # never used: a connection takes the certificates that are trusted when it is made
                    ssl_context=SSLContext(PROTOCOL_TLS_CLIENT),
                    proxy=None if proxy is None else _proxy(proxy),
                    max_connections=None,  # the callers' threads are the bound
                    max_keepalive_connections=None if self._keep else 0,
                    keepalive_expiry=IDLE_SECONDS,
                    network_backend=self._network,
                )
            return self._pool

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn any error into one of the two of this package, with a text of our own."""
        connecting, answering = self._names
        try:
            yield
        except HttpError:
            raise
        except httpcore2.ConnectTimeout:
            raise HttpUnavailable(
                f"no connection within {self._connect_timeout:g} s ({connecting})"
            ) from None
        except httpcore2.WriteTimeout:
            text = f"the request could not be sent within {self._timeout:g} s ({answering})"
            raise HttpUnavailable(text) from None
        except httpcore2.TimeoutException:
            raise HttpUnavailable(f"no answer within {self._timeout:g} s ({answering})") from None
        except httpcore2.NetworkError as error:  # raised by our Connection, with our text
            raise HttpUnavailable(f"the connection was lost: {error}") from None
        except httpcore2.ProxyError as error:
            raise _proxy_refused(str(error)) from None
        except httpcore2.LocalProtocolError:
            raise HttpRefused(UNSENDABLE) from None
        except httpcore2.ProtocolError:
            text = "the connection was closed half-way, or the other side does not speak HTTP"
            raise HttpUnavailable(text) from None
        except Exception as error:  # unforeseen: it must not end more than this request
            raise HttpUnavailable(f"the request failed with {type(error).__name__}") from None


UNSENDABLE: Final = "a header holds characters that HTTP does not allow, such as a line break at its end"


def _proxy(proxy: Address) -> httpcore2.Proxy:
    headers = [] if proxy.authorization is None else [("Proxy-Authorization", proxy.authorization)]
    return httpcore2.Proxy(f"http://{proxy.authority}", headers=headers)


def _proxy_refused(answer: str) -> HttpError:
    """``answer`` begins with the status; the rest is the proxy's own text."""
    status = int(answer[:3]) if answer[:3].isdecimal() else 0
    text = f"the proxy answers {status}{phrase(status)}"
    return (
        HttpUnavailable(text)
        if status >= 500 or status == HTTPStatus.TOO_MANY_REQUESTS
        else HttpRefused(text)
    )
