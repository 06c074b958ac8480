"""Only JSON objects on one line of their own get into a window."""

import pytest

from flagstream.export.validation import validate
from tests.support.recording import StoredRecord, event


def validated(*values: bytes | None) -> tuple[list[bytes], list[tuple[int, str]]]:
    """What is kept, and index and reason of what is not."""
    records = [StoredRecord(offset, value) for offset, value in enumerate(values)]
    found = validate(records)
    assert [record.value() for record in found.records] == found.values
    return found.values, [(reject.index, reject.reason) for reject in found.rejects]


def test_events_pass_as_they_are() -> None:
    """All of them, in order, the same bytes."""
    events = [event(number) for number in range(100)]

    assert validated(*events) == (events, [])


def test_nothing_passes_as_nothing() -> None:
    """A chunk without records is not an error."""
    assert validated() == ([], [])


def test_a_tombstone_is_rejected_by_its_name() -> None:
    """The records around it pass."""
    assert validated(event(0), None, event(2)) == ([event(0), event(2)], [(1, "tombstone")])


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"hello",
        b"42",
        b"null",
        b'"{}"',
        b"[]",
        b"[{}]",
        b"{",
        b"}",
        b"{}{}",
        b"{},{}",
        b'{"a":1},{"b":2}',
        b'{"a":1}\n{"b":2}',
        b'{"a":\n1}',
        b'{"a":1}\n',
        b"\n",
        b'\n{"a":1}',
        b' {"a":1}',
        b'{"a":1,}',
        b'{"a":"\xff"}',
        b'{"a":NaN}',
        b"\x00\x00\x00\x00\x01{}",
    ],
    ids=lambda value: repr(value[:16]),
)
def test_a_foreign_record_is_rejected(value: bytes) -> None:
    """Alone, between events, at the edges: it takes no other record with it, and none with it passes."""
    one, other = event(1), event(2)

    assert validated(value) == ([], [(0, "foreign")])
    assert validated(one, value, other) == ([one, other], [(1, "foreign")])
    assert validated(value, one, other) == ([one, other], [(0, "foreign")])
    assert validated(one, other, value) == ([one, other], [(2, "foreign")])


def test_what_nests_too_deeply_is_rejected_by_its_depth() -> None:
    """Not by where a decoder gives up, which depends on who calls: a plan that is repeated finds the same
    records.
    """

    def answers(frames: int) -> tuple[list[bytes], list[tuple[int, str]]]:
        return answers(frames - 1) if frames else validated(event(0), *deep, event(1))

    deep = [b'{"a":%b}' % (b"[" * levels + b"]" * levels) for levels in (2, 499, 500, 700, 950, 100_000)]
    expected = [event(0), *deep[:2], event(1)], [(n, "too_deep") for n in range(3, 7)]

    assert answers(0) == answers(300) == expected


def test_halves_of_an_object_do_not_pass_as_a_whole() -> None:
    """Records that only together would be JSON are each rejected."""
    assert validated(event(0), b'{"a":1', b'"b":2}') == ([event(0)], [(1, "foreign"), (2, "foreign")])


def test_records_that_make_up_for_each_other_do_not_pass() -> None:
    """Two objects in one record and half of one in others add up to the right count, but are not right."""
    two, half, rest = b'{"a":1},{"b":2}', b'{"c":[{}', b"{}]}"

    assert validated(two, half, rest) == ([], [(0, "foreign"), (1, "foreign"), (2, "foreign")])


def test_line_breaks_within_json_strings_pass_when_escaped() -> None:
    """What JSON escapes is not a line break."""
    value = b'{"a":"x\\ny","b":"}{"}'

    assert validated(value, event(1)) == ([value, event(1)], [])


def test_anything_else_that_is_an_object_passes() -> None:
    """Whether an object is an event was decided by the enrich stage."""
    values = [b"{}", b'{"a":{"b":[1e999,null]}}', b'{"a":1,"a":2}']

    assert validated(*values) == (values, [])


@pytest.mark.parametrize(
    "kind",
    [b"1e999", b"[1e999]", b'{"a":-1e999}', b"9" * 5_000, b"null", b"true", b"[]", b'"Tracking"', b'""'],
    ids=lambda kind: repr(kind[:16]),
)
def test_a_foreign_object_that_uses_the_word_kind_is_no_tracking_event(kind: bytes) -> None:
    """Even if its value cannot be held: it passes, and counts as anything that is not a tracking event."""
    foreign, tracking = b'{"kind":' + kind + b"}", b'{"kind":"track\\u0069ng"}'
    found = validate([StoredRecord(n, value) for n, value in enumerate([event(0), foreign, tracking])])

    assert found.of_kind("both").values == [event(0), foreign, tracking]
    assert found.of_kind("feature").values == [event(0), foreign]
    assert found.of_kind("tracking").values == [tracking]
