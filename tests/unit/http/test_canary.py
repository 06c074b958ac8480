"""A word planted in every secret of every HTTP client is nowhere to be read, whatever goes wrong."""

import asyncio
import logging
import socket
import ssl
import sys
import traceback
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from flagstream.config.flags import FlagSettings, HttpFlagSettings, RelayFlagSettings
from flagstream.config.settings import RegistrySettings
from flagstream.flag_sources.opening import probe, watch
from flagstream.formats import avro_schemas
from flagstream.sinks.webhook.settings import WebhookSettings
from flagstream.sinks.webhook.sink import WebhookSink
from flagstream.testing import events, fill
from flagstream.topic_formats.encoding import RegistryEncoder
from flagstream.topic_formats.known_schemas import KnownSchemas
from flagstream.topic_formats.registry import SchemaRegistry
from tests.support.echoing import Answer, answering, echo
from tests.support.swallowing import swallowing

WORD = "hunter2"
QUOTED = b64encode(f"user:{WORD}".encode()).decode()
"""What basic authentication makes of it."""
TIMEOUT = 0.15


def document(begin: str, end: str, kind: str) -> Answer:
    """A good status, and a broken document that holds the request."""

    def answer(request: bytes) -> bytes:
        body = begin.encode() + request.replace(b"\r\n", b" ") + end.encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
        return head.encode() + body

    return answer


ANSWERS: dict[str, Answer] = {
    **{
        f"{status}": echo(str(status))
        for status in (200, 204, 301, 400, 401, 403, 404, 407, 410, 413, 429, 500)
    },
    "yaml": document("a: [", "", "application/yaml"),
    "a list": document("- ", "", "application/yaml"),
    "a flag": document("a: {variations: '", "'}", "application/yaml"),
    "json": document('{"flags": {"a": "', '"}', "application/json"),
    "toml": document("a = ", "", "application/toml"),
    "message": document('{"error_code": 40403, "message": "', '"}', "application/json"),
    "schema": document('{"schema": "', '"}', "application/json"),
    "no HTTP": lambda request: request,
    "half a head": lambda request: b"HTTP/1.1 200 " + request[:20],
    "half a body": lambda request: b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n" + request,
    "no gzip": lambda request: (
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n" + request[:4]
    ),
    "coding": lambda request: (
        f"HTTP/1.1 200 OK\r\nContent-Encoding: {WORD}\r\nContent-Length: 0\r\n\r\n".encode()
    ),
    "nothing": lambda request: b"",
}


@contextmanager
def deaf() -> Iterator[int]:
    """A server that takes connections, and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@contextmanager
def unreachable() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with swallowing("127.0.0.1", port):
        yield port


def webhook(origin: str) -> list[str]:
    """All that the sink says when it opens, delivers (more often than its breaker allows) and proves."""
    settings = WebhookSettings.model_validate(
        {
            "endpoint_url": f"{origin.replace('//', f'//user:{WORD}@')}/{WORD}?token={WORD}",
            "secret": WORD,
            "previous_secrets": [f"{WORD}-1"],
            "headers": {"Authorization": f"Bearer {WORD}", "X-Key": [WORD, f"{WORD} 2"]},
            "allow_private_addresses": True,
            "connect_timeout": TIMEOUT,
            "timeout": TIMEOUT,
            "breaker_failures": 2,
        }
    )
    sink = WebhookSink(settings)
    window = fill(sink, events(2))
    said = [*heard(sink.open), *(f"{proof}" for proof in sink.probe())]
    for _ in range(3):
        said += heard(lambda: sink.deliver(window.manifest, window.payload))
    sink.close()
    return [*said, repr(settings), repr(sink)]


def flags(source: HttpFlagSettings | RelayFlagSettings) -> list[str]:
    """All that a source says when it is loaded, polled and proved, and its name."""
    settings = FlagSettings(sources=[source])
    watching = watch(settings, lambda _: None)
    said = [*heard(watching.begin), *heard(watching.begin)]
    [kept] = watching._sources
    return [
        *said,
        *heard(kept.poll),
        str(kept.problem),
        kept.name,
        *map(str, probe(settings)),
        repr(settings),
    ]


def http(origin: str) -> list[str]:
    """Return a flag source of type http."""
    return flags(
        HttpFlagSettings(
            type="http",
            url=SecretStr(f"{origin.replace('//', f'//user:{WORD}@')}/flags?token={WORD}"),
            headers={"Authorization": SecretStr(f"Bearer {WORD}"), "X-Key": SecretStr(WORD)},
            timeout=TIMEOUT,
        )
    )


def relay(origin: str) -> list[str]:
    """Return a flag source of type relay."""
    url = SecretStr(f"{origin.replace('//', f'//user:{WORD}@')}/")
    return flags(RelayFlagSettings(type="relay", url=url, api_key=SecretStr(WORD), timeout=TIMEOUT))


def registry(origin: str) -> list[str]:
    """Return the schema registry, as both stages use it."""
    settings = RegistrySettings(url=f"{origin}/api", user="user", password=SecretStr(WORD), timeout=TIMEOUT)
    client = SchemaRegistry(settings)
    known = KnownSchemas(client, "enrich")
    encoder = RegistryEncoder(avro_schemas.own("enriched_event"), client, "events", auto_register=False)

    said = [*heard(lambda: asyncio.run(known.learn([b"\0\0\0\7"]))), str(known.trouble), *heard(encoder.open)]
    said += heard(lambda: client.register("events-value", "{}"))
    said += [str(missing) for missing in known._missing.values()]
    client.close()
    return [*said, repr(settings)]


CLIENTS = {"webhook": webhook, "http": http, "relay": relay, "registry": registry}


def heard(call: Callable[[], object]) -> list[str]:
    """The trace of what ``call`` raises, if anything: its text is what logs and pages show."""
    try:
        call()
    except Exception as error:
        return ["".join(traceback.format_exception(error))]
    return []


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is waited for twice, libraries log everything, and the machine's proxies are not used."""

    async def give_up(_: float) -> None:
        raise TimeoutError

    monkeypatch.setattr("flagstream.topic_formats.known_schemas.asyncio.sleep", give_up)
    everything = logging.StreamHandler()  # the captured standard error
    everything.setStream(sys.stderr)
    monkeypatch.setattr(logging.getLogger(), "handlers", [everything])
    monkeypatch.setattr(logging.getLogger(), "level", logging.DEBUG)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def assert_silent(client: Callable[[str], list[str]], origin: str, capfd: pytest.CaptureFixture[str]) -> None:
    with capture_logs() as logs:
        said = client(origin)
    said += [str(line) for line in logs]
    said += capfd.readouterr()
    leaks = [text for text in said if WORD in text or QUOTED in text]
    assert leaks == []


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("answer", ANSWERS)
def test_answers(client: str, answer: str, capfd: pytest.CaptureFixture[str]) -> None:
    """No client shows its secret when a server quotes the request, in every place of its answer."""
    with answering(ANSWERS[answer]) as port:
        assert_silent(CLIENTS[client], f"http://127.0.0.1:{port}", capfd)


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("trouble", [deaf, unreachable], ids=lambda one: one.__name__)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_no_answer(
    client: str, trouble: Callable[[], Any], scheme: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """No client shows its secret without a connection either."""
    with trouble() as port:
        assert_silent(CLIENTS[client], f"{scheme}://127.0.0.1:{port}", capfd)


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize(
    "origin", ["http://127.0.0.1:1", "https://127.0.0.1:1", "http://nowhere.invalid", "http://a..b"]
)
def test_no_host(client: str, origin: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Nobody listens, or the name is not known."""
    assert_silent(CLIENTS[client], origin, capfd)


@pytest.mark.parametrize("client", CLIENTS)
def test_no_tls(client: str, capfd: pytest.CaptureFixture[str]) -> None:
    """The other side speaks plain HTTP."""
    with answering(echo("200")) as port:
        assert_silent(CLIENTS[client], f"https://127.0.0.1:{port}", capfd)


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_certificates(
    client: str,
    variable: str,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """A file that is not there, by a name that nobody needs to know."""
    monkeypatch.setenv(variable, str(tmp_path / WORD))
    with deaf() as port:
        assert_silent(CLIENTS[client], f"https://127.0.0.1:{port}", capfd)


@pytest.mark.parametrize("client", ["http", "registry"])
@pytest.mark.parametrize(
    "proxy",
    [
        f"http://user:{WORD}@127.0.0.1:1",
        f"http://user:{WORD}@nowhere.invalid",
        f"http://user:{WORD}@127.0.0.1:ECHO",
        f"http://user:{WORD}@127.0.0.1:DEAF",
        f"socks5://user:{WORD}@127.0.0.1:1",
        f"https://user:{WORD}@127.0.0.1:1",
        f"user:{WORD}@127.0.0.1:1",
        f"http://user:{WORD}",
        f"{WORD}",
        f"http://[{WORD}",
        f"http://user:{WORD}\n@127.0.0.1:1",
    ],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_proxies(
    client: str, proxy: str, scheme: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No client shows the proxies of the environment: nobody listens, one that refuses and quotes, one that
    is not a proxy at all."""
    with ExitStack() as stack:
        if "ECHO" in proxy:
            proxy = proxy.replace("ECHO", str(stack.enter_context(answering(echo("407")))))
        if "DEAF" in proxy:
            proxy = proxy.replace("DEAF", str(stack.enter_context(deaf())))
        monkeypatch.setenv(f"{scheme}_proxy", proxy)
        assert_silent(CLIENTS[client], f"{scheme}://127.0.0.1:1", capfd)


@pytest.mark.parametrize("client", CLIENTS)
def test_what_no_library_foresees(
    client: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No client shows the word when the lowest layer raises an error that holds it."""

    def fails(*_: object, **__: object) -> Any:
        raise RuntimeError(f"Authorization: Bearer {WORD}")

    with answering(echo("200")) as port:
        monkeypatch.setattr(ssl, "create_default_context", fails)
        monkeypatch.setattr(socket, "getaddrinfo", fails)
        assert_silent(CLIENTS[client], f"http://127.0.0.1:{port}", capfd)
