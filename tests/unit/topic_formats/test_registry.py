"""The registry's answers: which are worth another try, and what becomes of records meanwhile."""

import asyncio
import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from pydantic import SecretStr

from flagstream.config.settings import RegistrySettings
from flagstream.formats import avro_schemas as schemas
from flagstream.outcomes import Dead
from flagstream.topic_formats import known_schemas
from flagstream.topic_formats.decoding import FixedDecoder, RegistryDecoder
from flagstream.topic_formats.encoding import RegistryEncoder
from flagstream.topic_formats.known_schemas import KnownSchemas
from flagstream.topic_formats.registry import RegistryError, SchemaMissing, SchemaRegistry
from tests.support.receiver import Reply, receiving

Answer = tuple[int, str] | tuple[int, str, dict[str, str]]
PASSWORD = "hunter2"
MISSING = (404, '{"error_code":40403,"message":"Schema not found"}')
RECORD = '{"schema":"{\\"type\\":\\"record\\",\\"name\\":\\"R\\",\\"fields\\":[]}"}'


class Canned:
    """A registry that gives prepared answers, and the requests that it got."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.requests: list[tuple[str, dict[str, str]]] = []
        canned = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                canned.requests.append((f"{self.command} {self.path}", dict(self.headers)))
                status, body, *more = canned.answers.pop(0)
                self.send_response(status)
                for name, value in (more[0] if more else {}).items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body.encode())

            do_POST = do_GET

            def log_message(self, *_: Any) -> None:
                """Log nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def client(self, **more: Any) -> SchemaRegistry:
        url = f"http://127.0.0.1:{self.server.server_port}/api"
        settings = RegistrySettings(url=url, user="me", password=SecretStr(PASSWORD), timeout=5)
        return SchemaRegistry(settings, **more)


@pytest.fixture
def canned() -> Iterator[Canned]:
    server = Canned()
    yield server
    server.server.shutdown()
    server.server.server_close()


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries come at once."""
    for name in ("FIRST_PAUSE", "LONGEST_PAUSE", "DOUBT_PAUSE"):
        monkeypatch.setattr(known_schemas, name, 0.0)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ((500, ""), "unavailable"),
        ((503, "{}"), "unavailable"),
        ((429, "slow down"), "unavailable"),
        ((408, ""), "unavailable"),
        ((401, '{"error_code":401,"message":"Unauthorized"}'), "refused"),
        ((403, ""), "refused"),
        ((404, "<html>"), "refused"),
        ((404, '{"error_code":404,"message":"HTTP 404 Not Found"}'), "refused"),
        ((200, "<html>a log-in page</html>"), "refused"),
        ((200, '{"error":"log in first"}'), "refused"),
        ((302, ""), "refused"),
    ],
)
def test_only_its_own_word_says_that_a_schema_is_missing(canned: Canned, answer: Answer, kind: str) -> None:
    """All else is tried again: a wrong address or a log-in page must not turn events into dead letters."""
    canned.answers = [answer]

    with pytest.raises(RegistryError) as caught:
        canned.client().schema(7)

    assert caught.value.kind == kind
    assert PASSWORD not in str(caught.value)


def test_a_schema_that_is_missing_or_not_avro_is_said_to_be_so(canned: Canned) -> None:
    """Nobody can read its records."""
    canned.answers = [
        MISSING,
        (200, '{"schema":"{}","schemaType":"JSON"}'),
        (200, '{"schema":"{}","references":[{"name":"a"}]}'),
    ]
    client = canned.client()

    for _ in range(3):
        with pytest.raises(SchemaMissing):
            client.schema(7)


def test_calls_go_below_the_address_with_user_and_password(canned: Canned) -> None:
    """Basic authentication; the path of the address stays."""
    canned.answers = [(200, RECORD)]

    canned.client().schema(7)

    [(request, headers)] = canned.requests
    assert request == "GET /api/schemas/ids/7"
    assert headers["Authorization"].startswith("Basic ")


def test_a_registry_that_does_not_answer_is_unavailable() -> None:
    """Nobody listens."""
    client = SchemaRegistry(RegistrySettings(url="http://127.0.0.1:1"))

    with pytest.raises(RegistryError, match="does not answer") as caught:
        client.schema(1)

    assert caught.value.kind == "unavailable"


@pytest.mark.parametrize("status", [429, 503])
def test_a_registry_that_asks_to_wait_is_left_alone(canned: Canned, status: int) -> None:
    """It is left alone for as long as it says; each call fails with its answer meanwhile."""
    now = 100.0
    canned.answers = [(status, "{}", {"Retry-After": "3600"}), (200, RECORD)]
    client = canned.client(clock=lambda: now)

    for later in (100.0, 101.0, 3699.0):
        now = later
        with pytest.raises(RegistryError, match=f"{status} .*asks to wait 3600 s") as caught:
            client.schema(7)
        assert caught.value.kind == "unavailable"
    assert len(canned.requests) == 1

    now = 3700.0
    assert client.schema(7)


@pytest.mark.parametrize(
    "body",
    ['{"schema":null}', '{"schema":7}', '{"id":null}', '{"id":"x"}', '{"id":-1}', '{"id":4294967296}', "{}"],
)
def test_a_good_answer_of_something_else_is_waited_out(canned: Canned, body: str) -> None:
    """A proxy may answer 200, too: neither does the worker end, nor are there dead letters."""
    canned.answers = [(200, body)] * 3
    client = canned.client()

    for call in (
        lambda: client.schema(7),
        lambda: client.find("s", "{}"),
        lambda: client.register("s", "{}"),
    ):
        with pytest.raises(RegistryError) as caught:
            call()
        assert caught.value.kind == "refused"


def test_what_is_final_is_believed_only_from_a_new_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry that moved: the old host says over a kept connection that there is no such schema."""
    with receiving() as old:
        addresses = ["127.0.0.1"]

        def found(*_: object, **__: object) -> object:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (addresses[0], old.port))]

        monkeypatch.setattr(socket, "getaddrinfo", found)
        client = SchemaRegistry(RegistrySettings(url=f"http://schemas.example:{old.port}"))
        old.plan(Reply(200, body=RECORD.encode()), Reply(404, body=MISSING[1].encode()))
        client.schema(7)
        with receiving("127.0.0.2", old.port) as new:
            addresses[:] = ["127.0.0.2"]
            new.plan(Reply(200, body=RECORD.encode()))
            assert client.schema(8)
    client.close()


@pytest.mark.usefixtures("no_pause")
class TestRecords:
    """Return a decoder of Confluent's wire format."""

    def decoded(self, canned: Canned, *values: bytes) -> list[bytes | Dead | None]:
        decoder = RegistryDecoder(KnownSchemas(canned.client(), "enrich"))
        asyncio.run(decoder.prepare(values))
        assert decoder.trouble is None
        return decoder.decode(values)

    def test_failures_are_waited_out_and_a_schema_is_asked_for_once(self, canned: Canned) -> None:
        """However many records name it."""
        canned.answers = [(503, ""), (401, ""), (404, "<html>"), (200, RECORD)]

        assert self.decoded(canned, b"\0\0\0\0\7", b"\0\0\0\0\7") == [b"{}", b"{}"]
        assert {request for request, _ in canned.requests} == {"GET /api/schemas/ids/7"}
        assert len(canned.requests) == 4

    def test_a_replica_that_lags_behind_costs_no_event(self, canned: Canned) -> None:
        """That a schema is missing has to be said three times."""
        canned.answers = [MISSING, MISSING, (200, RECORD)]

        assert self.decoded(canned, b"\0\0\0\0\7") == [b"{}"]

    def test_an_unknown_schema_is_a_dead_letter_and_not_asked_for_again(self, canned: Canned) -> None:
        """The next records with that id do not wait for the registry; for a minute."""
        canned.answers = [MISSING, MISSING, MISSING]
        decoder = RegistryDecoder(KnownSchemas(canned.client(), "enrich"))

        asyncio.run(decoder.prepare([b"\0\0\0\0\7"]))
        asyncio.run(decoder.prepare([b"\0\0\0\0\7"]))
        [dead] = decoder.decode([b"\0\0\0\0\7"])

        assert isinstance(dead, Dead)
        assert dead.reason == "unknown_schema"
        assert "id 7" in dead.error

    def test_the_doubts_about_many_ids_are_one_wait(
        self, canned: Canned, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A chunk of foreign records costs two pauses, not two for each id in it; one that is there after all
        is no longer asked for.
        """
        pauses: list[float] = []

        async def pause(seconds: float) -> None:
            pauses.append(seconds)

        monkeypatch.setattr("flagstream.topic_formats.known_schemas.asyncio.sleep", pause)
        monkeypatch.setattr(known_schemas, "DOUBT_PAUSE", 0.5)
        values = [b"\0\0\0\0" + bytes([number]) for number in range(1, 21)]
        canned.answers = [(200, RECORD), *[MISSING] * 19, *[MISSING] * 19, (200, RECORD), *[MISSING] * 18]

        decoded = self.decoded(canned, *values)

        assert pauses == [0.5, 0.5]
        assert [value for value in decoded if not isinstance(value, Dead)] == [b"{}", b"{}"]

    def test_a_schema_that_is_no_record_is_a_dead_letter(self, canned: Canned) -> None:
        """A number holds no event."""
        canned.answers = [(200, '{"schema":"\\"int\\""}')]

        [dead] = self.decoded(canned, b"\0\0\0\0\7\2")

        assert isinstance(dead, Dead)
        assert dead.reason == "unknown_schema"

    def test_a_value_without_an_id_asks_nobody(self, canned: Canned) -> None:
        """Half an event in JSON, and what is too short."""
        for dead in self.decoded(canned, b'{"kind":"feature"}', b"{", b"\0\0\0", b"\1\0\0\0\7"):
            assert isinstance(dead, Dead)
            assert dead.reason == "invalid_avro"
        assert canned.requests == []

    def test_an_event_in_json_passes_as_it_is(self, canned: Canned) -> None:
        """From when the topic was JSON. On one line, as it is there, so that it is a line of a file."""
        one = b'{"kind":"feature","userKey":"u","creationDate":1,"key":"k","value":1.0,"x":null}'

        assert self.decoded(canned, one) == [one]
        [dead] = self.decoded(canned, one.replace(b",", b",\n"))
        assert isinstance(dead, Dead)
        assert "nor is it JSON on one line" in dead.error

    def test_an_event_of_a_json_serializer_passes_without_its_frame(self, canned: Canned) -> None:
        """Whatever the id says, nobody is asked for a schema: by the bytes alone, so that it is the same each
        time. What is not an event after the frame is Avro."""
        one = b'{"kind":"feature","userKey":"u","creationDate":1.0,"key":"k","value":1.0,"x":null}'

        assert self.decoded(canned, b"\0\0\0\0\x0a" + one) == [one]
        assert canned.requests == []
        canned.answers = [(200, RECORD)]
        [dead] = self.decoded(canned, b"\0\0\0\0\7" + one[:-1])
        assert isinstance(dead, Dead)
        assert dead.reason == "invalid_avro"

    def test_a_topic_with_one_schema_takes_it_too(self) -> None:
        """A producer that was changed over to JSON, with its serializer."""
        one = b'{"kind":"feature","userKey":"u","creationDate":1,"key":"k","value":1}'
        decoder = FixedDecoder(schemas.parsed(schemas.own("raw_event")))

        assert decoder.decode([b"\0\0\0\0\x0a" + one, one]) == [one, one]


class TestRegistering:
    """The encoder of the output topic gets the id of its schema."""

    def encoder(self, canned: Canned, *, auto_register: bool) -> RegistryEncoder:
        text = schemas.own("enriched_event")
        return RegistryEncoder(text, canned.client(), "events", auto_register=auto_register)

    def test_nothing_is_registered_unasked(self, canned: Canned) -> None:
        """A schema that is missing is waited for, with advice."""
        canned.answers = [(404, '{"error_code":40401}'), (200, '{"is_compatible":false}')]

        with pytest.raises(RegistryError, match=r'"events-value".*its rules forbid it.*auto_register'):
            self.encoder(canned, auto_register=False).open()

        assert [request for request, _ in canned.requests] == [
            "POST /api/subjects/events-value?normalize=true",
            "POST /api/compatibility/subjects/events-value/versions/latest",
        ]

    @pytest.mark.parametrize("auto_register", [True, False])
    def test_each_value_begins_with_its_id(self, canned: Canned, auto_register: bool) -> None:
        """The prefix is a zero byte and the id, big-endian."""
        canned.answers = [(200, '{"id":258}')]
        encoder = self.encoder(canned, auto_register=auto_register)

        encoder.open()
        value = encoder.encode(
            b'{"kind":"tracking","contextKind":"user","userKey":"u","creationDate":1,"key":"k"}'
        )

        assert isinstance(value, bytes)
        assert value[:5] == b"\0\0\0\1\2"

    def test_an_incompatible_schema_is_refused(self, canned: Canned) -> None:
        """It is tried again: somebody has to act."""
        canned.answers = [(409, '{"error_code":409,"message":"incompatible"}')]

        with pytest.raises(RegistryError, match="incompatible") as caught:
            self.encoder(canned, auto_register=True).open()

        assert caught.value.kind == "refused"
