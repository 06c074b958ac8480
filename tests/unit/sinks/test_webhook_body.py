"""How a window becomes the bodies of requests, and that they are GO Feature Flag's byte for byte."""

import json
from pathlib import Path
from typing import Any

import pytest

from flagstream.chunk import Partition
from flagstream.sinks.webhook.body import Parts, PartsEncoder, go_json
from flagstream.sinks.webhook.settings import WebhookSettings
from flagstream.sinks.webhook.sink import WebhookSink
from flagstream.testing import PARTITION, StoredRecord, Window, event, events, fill
from flagstream.window import Manifest, OffsetRange
from tests.support.receiver import receiving

GOFF = Path(__file__).parents[2] / "goff"
VECTORS = [json.loads(line) for line in (GOFF / "generated/webhook_vectors.jsonl").read_text().splitlines()]
UPSTREAM = sorted(GOFF.glob("v*/exporter/webhookexporter/testdata/*.json"))
SIZE = len(event(10))


class Cutting:
    """Stands for a sink in ``fill``."""

    fingerprint = ""

    def __init__(self, max_events: int = 1000, max_bytes: int = 100_000, event_ids: bool = False) -> None:
        self._limits = max_events, max_bytes, event_ids

    def begin(self, partition: Partition, start: int) -> PartsEncoder:
        return PartsEncoder(partition, *self._limits)


def ids(window: Window) -> list[str]:
    """Return ids of a window's parts without the partition."""
    payload: Parts = window.payload
    return [part.id.removeprefix(f"{PARTITION}-") for part in payload.parts]


def members(body: bytes) -> list[bytes]:
    """The texts of the events of a body that the tests' own encoder can write."""
    return [
        json.dumps(event, separators=(",", ":"), ensure_ascii=False)
        .replace("<", "\\u003c")
        .replace(">", "\\u003e")
        .replace("&", "\\u0026")
        .encode()
        for event in json.loads(body)["events"]
    ]


def received(values: list[bytes], **settings: Any) -> tuple[bytes, str | None]:
    """Body and signature as they arrive at a receiver."""
    with receiving() as receiver:
        all_settings = {"endpoint_url": receiver.url, "allow_private_addresses": True, **settings}
        sink = WebhookSink(WebhookSettings.model_validate(all_settings))
        window = fill(sink, values)
        sink.deliver(window.manifest, window.payload)
        sink.close()
        (request,) = receiver.requests
        assert request.header("Content-Type") == "application/json"
        return request.body, request.header("X-Hub-Signature-256")


class TestGoFeatureFlag:
    """What a receiver of GO Feature Flag's webhook gets is what it is used to."""

    @pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
    def test_body_and_signature(self, vector: dict[str, str]) -> None:
        """The body of each recorded request, and its signature, is the same byte for byte."""
        body = vector["body"].encode()
        meta = json.loads(body)["meta"]
        found = received(members(body), meta=meta, secret=vector["secret"])
        assert found == (body, vector["X-Hub-Signature-256"])

    @pytest.mark.parametrize("path", UPSTREAM, ids=lambda path: f"{path.parts[-5]} {path.stem}")
    def test_upstream_golden_files(self, path: Path) -> None:
        """The exporter's own golden files, in the compact form in which they are sent."""
        golden = json.loads(path.read_text())
        compact = json.dumps(golden, separators=(",", ":")).encode()
        signed = path.stem == "valid_with_signature"
        body, signature = received(members(compact), meta=golden["meta"], secret="secret" if signed else None)
        assert body == compact
        assert signature == (VECTORS[0]["X-Hub-Signature-256"] if signed else None)

    def test_all_golden_files_are_there(self) -> None:
        """Both upstream versions have one, with and without a signature."""
        assert len(UPSTREAM) == 4

    def test_hostname_is_added(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The worker's host name is a member of meta, in its sorted place, unless the user gave one."""
        monkeypatch.setattr("socket.gethostname", lambda: "host-7")
        body, _ = received(events(1), meta={"team": "a", "app": "b"})
        assert body.startswith(b'{"meta":{"app":"b","hostname":"host-7","team":"a"},"events":[{')
        body, _ = received(events(1), meta={"hostname": "mine"})
        assert body.startswith(b'{"meta":{"hostname":"mine"},"events":[{')

    def test_meta_is_escaped_as_go_does(self) -> None:
        """What HTML could take for a tag, and line separators; other characters stay."""
        meta = {"b": "<&>\u2028\u2029", "a": 'é"\\\n\x01', "ß": "ü"}
        expected = '{"a":"é\\"\\\\\\n\\u0001","b":"\\u003c\\u0026\\u003e\\u2028\\u2029","ß":"ü"}'
        assert expected.encode() == go_json(meta)

    def test_events_are_the_topics_bytes(self) -> None:
        """Order, spaces, numbers and escapes of an event are not touched."""
        values = [b' {"z":1.0, "a":1e400,"big":9007199254740993} ', '{"ü":"\\u00fc"}'.encode()]
        body, _ = received(values, meta={"hostname": "h"})
        assert body == b'{"meta":{"hostname":"h"},"events":[' + b",".join(values) + b"]}"


class TestCutting:
    """The tests show where a window is cut, and what the parts are called."""

    def test_one_part_has_the_windows_id(self) -> None:
        """A window that fits is one request: topic-partition-start-end."""
        window = fill(Cutting(), events(10), start=5)
        assert [part.id for part in window.payload.parts] == ["evaluations-3-5-15"]
        assert str(window.manifest.range) == "evaluations-3-5-15"

    def test_by_count(self) -> None:
        """No part has more events than allowed; their ranges tile the window's."""
        window = fill(Cutting(max_events=4), events(10), start=5)
        assert ids(window) == ["5-9", "9-13", "13-15"]

    def test_by_bytes(self) -> None:
        """A part takes as many events as fit with the commas between them, and not one byte more."""
        values = events(7, first=10)
        exact = Cutting(max_bytes=3 * SIZE + 2)
        assert ids(fill(exact, values)) == ["0-3", "3-6", "6-7"]
        assert ids(fill(Cutting(max_bytes=3 * SIZE + 1), values)) == ["0-2", "2-4", "4-6", "6-7"]
        assert max(len(part.events) for part in fill(exact, values).payload.parts) == 3 * SIZE + 2

    def test_gaps_belong_to_a_part(self) -> None:
        """Offsets without a record, and records that were filtered out, leave no hole between parts."""
        window = fill(Cutting(max_events=2), events(5), start=3, offsets=[10, 12, 19, 30, 31])
        assert ids(window) == ["3-13", "13-31", "31-32"]

    def test_window_that_begins_before_its_first_chunk(self) -> None:
        """A window is named from where the one before it ended, though it begins to fill later."""
        encoder = Cutting(max_events=1).begin(PARTITION, 10)
        encoder.add(events(2), [StoredRecord(11, event(0)), StoredRecord(12, event(1))])
        parts = encoder.finish(Manifest(OffsetRange(PARTITION, 4, 20), 2, "", "")).parts
        assert [(part.range.start, part.range.end) for part in parts] == [(4, 12), (12, 20)]

    def test_cuts_of_chunks_do_not_matter(self) -> None:
        """However the records were fetched, parts are the same: an id always means the same events."""
        sink = Cutting(max_events=7, max_bytes=5 * SIZE)
        values = [*events(20), b"no event", *events(20, first=500)]
        whole = fill(sink, values).payload
        assert whole == fill(sink, values, cuts=[1, 2, 6, 7, 8, 20, 21]).payload
        assert whole == fill(sink, values, cuts=range(1, 41)).payload

    def test_no_event_is_lost_between_parts(self) -> None:
        """The parts' events, joined, are the window's."""
        payload: Parts = fill(Cutting(max_events=3), events(10)).payload
        assert b",".join(part.events for part in payload.parts) == b",".join(events(10))


class TestRejects:
    """An event that cannot be sent is a dead letter; the others go."""

    def test_too_large(self) -> None:
        """An event larger than a part would be refused for ever."""
        encoder = Cutting(max_bytes=SIZE).begin(PARTITION, 0)
        large = b'{"a":"' + b"x" * SIZE + b'"}'
        (reject,) = encoder.add([event(10), large], [StoredRecord(0, event(10)), StoredRecord(1, large)])
        assert (reject.index, reject.reason) == (1, "too_large")
        assert f"max_part_bytes is {SIZE}" in reject.error

    def test_not_an_event(self) -> None:
        """One unreadable value would spoil the whole body."""
        encoder = Cutting().begin(PARTITION, 0)
        (reject,) = encoder.add([b'{"a":}'], [StoredRecord(0, b"")])
        assert (reject.index, reject.reason) == (0, "not_an_event")
        assert (encoder.size, encoder.memory) == (0, 0)


def test_event_ids() -> None:
    """Each event says its place in the topic if so configured, unless it brings an id."""
    window = fill(Cutting(event_ids=True), [b' {"a":1}', b'{"id":"own"}'], start=7)
    (part,) = window.payload.parts
    assert part.events == b'{"id":"evaluations-3-7","a":1},{"id":"own"}'


def test_memory_covers_what_is_kept() -> None:
    """Memory is never less than the size, and is there only for what was added."""
    encoder = Cutting(max_events=2).begin(PARTITION, 0)
    assert encoder.memory == 0
    for number in range(5):
        encoder.add([event(number)], [StoredRecord(number, event(number))])
        assert encoder.memory >= encoder.size > 0
