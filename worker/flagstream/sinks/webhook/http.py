"""HTTP requests to one address that somebody else chose: never into our own network, never without bound."""

import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from flagstream.errors import SinkRefused, SinkUnavailable
from flagstream.http.address import parse
from flagstream.http.client import HttpClient
from flagstream.http.failures import HttpError, HttpRefused, HttpUnavailable

_ANSWER_READ = 1 << 16
"""Bytes of an answer's body that are read and dropped, so that its connection can be used again."""

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""RFC 6052: the last four bytes are an IPv4 address that a gateway connects to."""


@dataclass(frozen=True, slots=True)
class WebhookAnswer:
    """Holds the answer of an endpoint. ``fresh``: it came over a connection that was made for this request,
    to an address that was looked up for it. ``repeated``: an earlier try of the same request may have arrived
    too.
    """

    status: int
    retry_after: str | None
    fresh: bool
    repeated: bool


class GuardedClient:
    """Sends POST requests to one URL. All threads share the connections, which are kept for a while.

    For every new connection the client resolves the host's name and judges the addresses: without
    ``allow_private`` it uses only those in the public Internet. ``connect_timeout`` bounds making a
    connection, over all addresses of the host; ``timeout`` bounds the time from then to the answer; both in
    seconds. The resolver keeps its own time-out. The client ignores proxies of the environment: a proxy would
    resolve the name by itself.
    """

    def __init__(self, url: str, *, allow_private: bool, connect_timeout: float, timeout: float) -> None:
        self._address = parse(url)
        self.shown = self._address.shown
        """Scheme, host and port: user, path and query of a webhook are often its secret."""
        self._http = HttpClient(
            self._address,
            connect_timeout=connect_timeout,
            timeout=timeout,
            names=("connect_timeout", "timeout"),
            admit=None if allow_private else _public,
            proxies=False,
        )

    def post(self, headers: Iterable[tuple[str, str]], body: bytes, *, fresh: bool = False) -> WebhookAnswer:
        """Send ``body``, over a new connection if ``fresh``, and return the answer once its head has arrived.

        If a kept connection ended before an answer came, the request is sent again over a new one. Raises
        SinkRefused for an address that is not allowed or a certificate that is not trusted, and
        SinkUnavailable if there is no answer in time.
        """
        target = self._address.target
        with self._judged(), self._http.request("POST", target, list(headers), body, fresh=fresh) as response:
            response.skip(_ANSWER_READ)
            return WebhookAnswer(
                response.status, response.header("Retry-After"), response.fresh, response.repeated
            )

    def resolve(self) -> Sequence[str]:
        """Return the host's addresses that may be used. Raises SinkRefused if all are forbidden, and
        SinkUnavailable if the name is not known.
        """
        with self._judged():
            return self._http.resolve()

    def connect(self) -> None:
        """Make a connection, with TLS where the URL says so, and close it; the endpoint sees no request."""
        with self._judged():
            self._http.connect()

    def close(self) -> None:
        self._http.close()

    @contextmanager
    def _judged(self) -> Iterator[None]:
        """Turn a failure into the SinkError that says who must act."""
        try:
            yield
        except HttpUnavailable as error:
            raise SinkUnavailable(f"{self.shown}: {error}", unanswered=error.sent) from None
        except HttpError as error:
            # No answer judged what was sent: trust, addresses and headers may be mended without a new window.
            raise SinkRefused(f"{self.shown}: {error}", denied=True, repeated=error.sent) from None


def is_public(address: str) -> bool:
    """Return whether ``address`` is in the public Internet. An IPv6 address that leads to an IPv4 one is
    judged by the latter.
    """
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if ip in _NAT64:
            inner = ipaddress.IPv4Address(ip.packed[-4:])
        if inner is not None:
            return is_public(str(inner))
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)


def _public(host: str, addresses: Sequence[str]) -> Sequence[str]:
    allowed = [one for one in addresses if is_public(one)]
    if not allowed:
        shown = host if list(addresses) == [host] else f"{host} ({', '.join(addresses)})"
        raise HttpRefused(
            f"{shown} is not a public address; set allow_private_addresses = true if it is meant"
        )
    return allowed
