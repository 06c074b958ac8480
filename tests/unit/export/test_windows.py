"""A window while it fills: what it takes, when it is full, and what it says of itself when it is closed."""

from collections.abc import Sequence

import pytest

from flagstream.chunk import Record
from flagstream.export.takeover import FixedEnd
from flagstream.export.windows import Limits, OpenWindow
from flagstream.formats.parquet import ParquetFormat
from flagstream.kafka.commit_metadata import Plan
from flagstream.outcomes import Reject
from flagstream.testing import event as whole_event
from flagstream.window import ContentDigest, OffsetRange
from tests.support.recording import PARTITION, RecordingSink, StoredRecord, event

MIB = 1024**2


class Picky:
    """An encoder that rejects what its format cannot hold: values with "no" in them."""

    def __init__(self) -> None:
        self.kept: list[bytes] = []

    @property
    def memory(self) -> int:
        return self.size

    @property
    def size(self) -> int:
        return sum(map(len, self.kept))

    def add(self, values: Sequence[bytes], records: Sequence[Record]) -> Sequence[Reject]:
        assert [record.value() for record in records] == list(values)
        self.kept += [value for value in values if b"no" not in value]
        return [Reject(index, "picky", "no") for index, value in enumerate(values) if b"no" in value]

    def finish(self, manifest: object) -> list[bytes]:
        return self.kept


def filling(
    *, position: int = 0, range_start: int = 0, events: int = 10, size: int = MIB, until: int | None = None
) -> OpenWindow:
    fixed = None if until is None else FixedEnd(until, Plan(until, 1, "digest", "shape"))
    return OpenWindow(
        RecordingSink([]),
        PARTITION,
        position,
        range_start,
        limits=Limits(events, size, MIB),
        sink_name="test",
        fixed=fixed,
    )


def records(*offsets: int, values: dict[int, bytes | None] | None = None) -> list[StoredRecord]:
    replaced = values or {}
    return [StoredRecord(at, replaced[at] if at in replaced else event(at)) for at in offsets]


def digest(values: Sequence[bytes]) -> str:
    content = ContentDigest()
    content.update(values)
    return content.hexdigest()


def test_an_empty_window_is_not_full() -> None:
    """It has no size, and room for as many records as it may hold."""
    window = filling(events=3)

    assert window.empty
    assert window.size == 0
    assert window.full_by is None
    assert window.room(records(0, 1, 2, 3, 4)) == 3


def test_says_what_it_holds() -> None:
    """Range, count, digest and fingerprint; its end is the last record's offset + 1, gaps or not."""
    window = filling(position=5, range_start=5)
    window.add(records(5, 6, 9))

    closed = window.close("events", "topic-id")

    assert closed.range == OffsetRange(PARTITION, 5, 10)
    assert closed.manifest is not None
    assert (closed.manifest.records, closed.events) == (3, 3)
    assert closed.manifest.digest == digest([event(5), event(6), event(9)])
    assert (closed.manifest.config, closed.manifest.topic_id) == ("shape", "topic-id")


def test_content_does_not_depend_on_how_chunks_were_cut() -> None:
    """One by one or all together: the same digest and the same bytes."""
    together, single = filling(), filling()
    together.add(records(*range(8)))
    for at in range(8):
        single.add(records(at))

    one, other = together.close("events", ""), single.close("events", "")
    one.encode()
    other.encode()

    assert one.manifest == other.manifest
    assert b"".join(one.payload) == b"".join(other.payload)


def test_is_encoded_once() -> None:
    """What it holds is known when it is closed, its payload from the first call on."""
    window = filling()
    window.add(records(0, 1))

    closed = window.close("events", "")
    before = closed.payload
    closed.encode()
    payload = closed.payload
    closed.encode()

    assert before is None
    assert payload is not None
    assert b"".join(payload) == event(0) + b"\n" + event(1) + b"\n"
    assert closed.payload is payload


def test_takes_less_memory_when_it_is_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until then it takes what waits to be encoded; rows of Parquet take much."""
    form = ParquetFormat("both", "snappy", event_ids=False)
    monkeypatch.setattr(RecordingSink, "begin", lambda *_: form.begin(PARTITION))
    window = filling(events=100)
    window.add(records(*range(100), values=dict.fromkeys(range(100), whole_event(1))))

    closed = window.close("events", "")
    before = closed.bytes
    closed.encode()

    assert before > closed.bytes >= sum(map(len, closed.payload))
    assert closed.size == sum(map(len, closed.payload))


def test_is_named_from_where_the_last_object_ended() -> None:
    """Records before its position were exported nowhere; they belong to its range, not to its content."""
    window = filling(position=5, range_start=2)
    window.add(records(5, 6))

    closed = window.close("events", "")

    assert (closed.range, closed.position, closed.events) == (OffsetRange(PARTITION, 2, 7), 5, 2)


def test_rejected_records_count_for_its_limit_only() -> None:
    """A topic full of foreign records closes windows too; what is exported is the rest."""
    window = filling(events=4)
    window.add(records(0, 1, 2, 3, values={1: None, 2: b"[]"}))

    assert window.full_by == "events"
    assert window.room(records(4)) == 0
    closed = window.close("events", "")
    assert closed.manifest is not None
    assert (closed.manifest.records, closed.manifest.digest) == (2, digest([event(0), event(3)]))
    assert [letter.reason for letter in closed.rejects] == ["tombstone", "foreign"]


def test_a_window_of_rejects_has_no_manifest() -> None:
    """There is nothing to deliver; its range stands."""
    window = filling()
    window.add(records(0, 1, values={0: None, 1: None}))

    closed = window.close("time", "")

    assert closed.manifest is None
    assert closed.events == 0
    assert closed.range == OffsetRange(PARTITION, 0, 2)


def test_rejects_of_the_format_are_not_in_the_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    """The encoder sees what passed validation; its own rejects become dead letters of the right records."""
    monkeypatch.setattr(RecordingSink, "begin", lambda *_: Picky())
    window = filling()
    window.add(records(0, 1, 2, 3, values={0: None, 2: b'{"no":1}'}))

    closed = window.close("events", "")
    closed.encode()

    assert closed.manifest is not None
    assert closed.manifest.digest == digest([event(1), event(3)])
    assert closed.payload == [event(1), event(3)]
    headers = [dict(letter.headers) for letter in closed.rejects]
    assert [(h["flagstream-offset"], h["flagstream-reason"]) for h in headers] == [
        (b"0", b"tombstone"),
        (b"2", b"picky"),
    ]


def test_a_dead_letter_is_the_record_with_the_reason() -> None:
    """Key, value and headers as they were, and where the record stood."""
    window = filling()
    window.add(records(7, values={7: b"[1]"}))

    (letter,) = window.close("time", "").rejects

    assert (letter.key, letter.value, letter.headers[0]) == (b"key", b"[1]", ("trace", b"1"))
    headers = dict(letter.headers)
    assert headers["flagstream-stage"] == b"sink.test"
    assert headers["flagstream-topic"] == b"evaluations"
    assert headers["flagstream-partition"] == b"3"


def test_dead_letters_take_memory_too() -> None:
    """A window of large foreign records is closed by its bytes."""
    window = filling(size=10_000, events=1_000)
    window.add(records(0, values={0: b"x" * 20_000}))

    assert window.size > 20_000
    assert window.full_by == "bytes"


def test_a_planned_end_outweighs_all_limits() -> None:
    """It takes what lies before its end, is full at its end and not before, and takes nothing after it."""
    window = filling(events=2, size=1, until=7)

    assert window.room(records(0, 1, 2, 6, 7, 8)) == 4
    window.add(records(0, 1, 2))
    before = window.full_by
    window.add(records(6))
    assert (before, window.full_by) == (None, "plan")
    assert window.room(records(7)) == 0
