"""What holds for every client: webhook, flag sources, relay, registry."""

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from pydantic import SecretStr

from flagstream.config.flags import HttpFlagSettings, RelayFlagSettings
from flagstream.config.settings import RegistrySettings
from flagstream.flag_sources.opening import place
from flagstream.sinks.webhook.settings import WebhookSettings
from flagstream.sinks.webhook.sink import WebhookSink
from flagstream.testing import events, fill
from flagstream.topic_formats.registry import SchemaRegistry
from tests.support.receiver import Receiver, Reply, receiving
from tests.support.swallowing import swallowing


def webhook(origin: str) -> None:
    settings = WebhookSettings(endpoint_url=SecretStr(origin), allow_private_addresses=True)
    sink = WebhookSink(settings)
    window = fill(sink, events(1))
    sink.deliver(window.manifest, window.payload)
    sink.close()


def http(origin: str) -> None:
    place(HttpFlagSettings(type="http", url=SecretStr(origin))).fetch(unconditional=True)


def relay(origin: str) -> None:
    place(RelayFlagSettings(type="relay", url=SecretStr(origin))).fetch(unconditional=True)


def registry(origin: str) -> None:
    client = SchemaRegistry(RegistrySettings(url=origin))
    client.schema(1)
    client.close()


CLIENTS = [webhook, http, relay, registry]


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Receiver]]:
    """A host has two addresses that swallow packets and a good one after them."""
    with receiving() as receiver, ExitStack() as stack:
        found = []
        for address in ("127.0.0.2", "127.0.0.3"):
            stack.enter_context(swallowing(address, receiver.port))
            found.append((socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, receiver.port)))
        found.append((socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", receiver.port)))
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        monkeypatch.setenv("NO_PROXY", "*")
        yield f"http://host.example:{receiver.port}", receiver


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.__name__)
def test_a_good_address_behind_two_that_swallow_packets(
    client: Callable[[str], None], host: tuple[str, Receiver]
) -> None:
    """It is reached by the first request, at the default time-outs, long before any of them is over."""
    origin, receiver = host
    body = b'{"schema": "{}"}' if client is registry else b'{"flags": {}}'
    receiver.answer = lambda request: Reply(200, body=body)
    client(origin)
    assert len(receiver.requests) == 1
