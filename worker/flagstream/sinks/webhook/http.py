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
"""Bytes of an answer's body that are read so that its connection can be used again; nobody looks at them."""

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""RFC 6052: the last four bytes are an IPv4 address that a gateway connects to."""


@dataclass(frozen=True, slots=True)
class WebhookAnswer:
    """What an endpoint answered. ``fresh``: over a connection that was made for the request, to an address
    that was looked up for it. ``repeated``: an earlier try of the same request may have
    arrived as well.
    """

    status: int
    retry_after: str | None
    fresh: bool
    repeated: bool


class GuardedClient:
    """POSTs to one URL. Connections are kept and shared by all threads, for a while.

    Every time a connection is made the host's name is resolved and the addresses are judged: only those in
    the public Internet are used unless ``allow_private``. ``connect_timeout`` bounds making a connection,
    over all addresses of the host; ``timeout`` the time from then to the answer; both in seconds. The
    resolver keeps its own time-out. Proxies of the environment are passed over: one would resolve the name
    by itself.
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
        """Send ``body``, over a new connection if ``fresh``. An answer counts once its head is there.

        A kept connection that ended before an answer came is no failure: the request is sent again over a
        new one. Raises SinkRefused for an address that is not allowed or a certificate that is not trusted,
        SinkUnavailable when there is no answer in time.
        """
        target = self._address.target
        with self._judged(), self._http.request("POST", target, list(headers), body, fresh=fresh) as response:
            response.skip(_ANSWER_READ)
            return WebhookAnswer(
                response.status, response.header("Retry-After"), response.fresh, response.repeated
            )

    def resolve(self) -> Sequence[str]:
        """The host's addresses that may be used. Raises SinkRefused when there are none but forbidden ones,
        SinkUnavailable when its name is not known.
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
        """Turns a failure into the SinkError that says who must act."""
        try:
            yield
        except HttpUnavailable as error:
            raise SinkUnavailable(f"{self.shown}: {error}", unanswered=error.sent) from None
        except HttpError as error:
            # No answer judged what was sent: trust, addresses and headers may be mended without a new window.
            raise SinkRefused(f"{self.shown}: {error}", denied=True, repeated=error.sent) from None


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


def _public(host: str, addresses: Sequence[str]) -> Sequence[str]:
    allowed = [one for one in addresses if is_public(one)]
    if not allowed:
        shown = host if list(addresses) == [host] else f"{host} ({', '.join(addresses)})"
        raise HttpRefused(f"{shown} is no public address; set allow_private_addresses = true if it is meant")
    return allowed
