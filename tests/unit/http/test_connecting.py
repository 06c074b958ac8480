"""Hosts with several addresses: time is shared, and what answered is remembered."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from flagstream.http import connecting
from flagstream.http.connecting import Addresses, Endpoint, connect
from flagstream.http.failures import HttpUnavailable
from tests.support.swallowing import swallowing


def at(*addresses: str, port: int) -> list[Endpoint]:
    return [Endpoint(socket.AF_INET, (address, port)) for address in addresses]


@pytest.fixture
def port() -> Iterator[int]:
    """A port on which 127.0.0.1 takes connections, and 127.0.0.2 and 127.0.0.3 swallow packets."""
    with socket.create_server(("127.0.0.1", 0)) as good, ExitStack() as stack:
        port = good.getsockname()[1]
        for bad in ("127.0.0.2", "127.0.0.3"):
            stack.enter_context(swallowing(bad, port))
        yield port


def test_addresses_that_swallow_packets_do_not_use_up_the_time(port: int) -> None:
    """The third address is tried while the first two are still waited for."""
    sock, endpoint = connect(
        at("127.0.0.2", "127.0.0.3", "127.0.0.1", port=port), time.monotonic() + 10, lambda address: None
    )
    with sock:
        assert endpoint.address == "127.0.0.1"
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1


def test_a_short_time_reaches_for_all_addresses(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The addresses share it: none is left out because others came first."""
    monkeypatch.setattr(connecting, "STAGGER", 60.0)
    sock, endpoint = connect(
        at("127.0.0.2", "127.0.0.3", "127.0.0.1", port=port), time.monotonic() + 1.5, lambda address: None
    )
    with sock:
        assert endpoint.address == "127.0.0.1"


def test_all_swallow(port: int) -> None:
    """The time is the bound."""
    with pytest.raises(TimeoutError):
        connect(at("127.0.0.2", "127.0.0.3", port=port), time.monotonic() + 0.3, lambda address: None)


def test_all_refuse() -> None:
    """No time-out is waited for, and each that refused is named."""
    refused: list[str] = []
    with pytest.raises(HttpUnavailable, match="refused"):
        connect(at("127.0.0.2", "127.0.0.3", port=1), time.monotonic() + 60, refused.append)
    assert refused == ["127.0.0.2", "127.0.0.3"]


def test_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """What answered last goes first, what failed last until it answers; the rest as the resolver says."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"127.0.0.{n}", 80)) for n in (1, 2, 3, 4)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    addresses = Addresses()

    def order() -> str:
        return "".join(one.address[-1] for one in addresses.resolve("host", 80))

    assert order() == "1234"
    addresses.answered("127.0.0.3")
    assert order() == "3124"
    addresses.failed("127.0.0.1")
    assert order() == "3241"
    addresses.failed("127.0.0.3")
    assert order() == "2413"
    addresses.answered("127.0.0.1")
    assert order() == "1243"
