import json
import random
from pathlib import Path

import pytest

from flagstream.events import DEEPEST, Event, any_too_deep, decode, too_deep, whole_number
from flagstream.outcomes import Dead
from tests.support.broken_records import ACCEPTED, BROKEN_RECORDS, EVENT, event


@pytest.mark.parametrize(
    ("name", "value", "reason"), BROKEN_RECORDS, ids=[name for name, _, _ in BROKEN_RECORDS]
)
def test_a_broken_record_has_its_documented_reason(name: str, value: bytes | None, reason: str) -> None:
    """Each kind of broken record is a dead letter with a reason and a text, or accepted, as documented."""
    decoded = decode(value)

    assert reason == (decoded.reason if isinstance(decoded, Dead) else ACCEPTED)
    assert isinstance(decoded, Event) or decoded.error


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (EVENT.replace(b'"kind":"feature",', b""), "Object missing required field `kind`"),
        (EVENT.replace(b',"value":true', b""), "Object missing required field `value`"),
        (event(b'"userKey":5'), "Expected `str`, got `int` - at `$.userKey`"),
        (event(b'"metadata":[]'), "Expected `object | null`, got `array` - at `$.metadata`"),
        (event(b'"x":"\xff"'), f"Not UTF-8: invalid start byte (byte {len(EVENT) + 5})"),
        (event(rb'"x":"\ud800"'), "half of a surrogate pair"),
    ],
)
def test_the_error_names_the_field_or_the_place(value: bytes, error: str) -> None:
    """The text of a dead letter says where to look."""
    decoded = decode(value)

    assert isinstance(decoded, Dead)
    assert error in decoded.error


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (b"\xef\xbb\xbf" + EVENT, "it begins with a byte order mark"),
        (b"\0\0\0\1\2\x0efeature", "a zero byte and the schema id 258"),
    ],
)
def test_the_error_names_what_wrote_the_value(value: bytes, hint: str) -> None:
    """A decoder's words ("invalid character, byte 0") would not lead a person there."""
    decoded = decode(value)

    assert isinstance(decoded, Dead)
    assert hint in decoded.error


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (b"1680246000", 1_680_246_000),
        (b"-1", -1),
        (b"1680246000.0", 1_680_246_000),
        (b"1680246000." + b"0" * 5_000, 1_680_246_000),
        (b"1.680246e9", 1_680_246_000),
        (b"16802460000E-1", 1_680_246_000),
        (b"-0.0", 0),
        (b"0e999999999", 0),
        (b"9.223372036854775807e18", 2**63 - 1),
        (b"-9223372036854775808.0", -(2**63)),
    ],
)
def test_a_whole_number_has_many_forms(text: bytes, number: int) -> None:
    """Languages without integers write a fraction of zero, or an exponent; nothing is rounded."""
    assert number == whole_number(text)


@pytest.mark.parametrize(
    "text",
    [
        *(b"1.5", b"1680246000.0000000001", b"1e-999999999", b"9223372036854775808", b"1e19"),
        *(b"1e999999999", b"1e99999999999999999999999", b"9" * 10_000, b'"1"', b"null", b"[]", b"true"),
    ],
)
def test_what_is_no_whole_number_of_64_bits_is_refused_without_making_it(text: bytes) -> None:
    """A few bytes can stand for a number that fills the memory."""
    with pytest.raises(ValueError):
        whole_number(text)


def test_no_error_repeats_what_was_in_the_record() -> None:
    """Values may be personal data, so the error text, which is logged, holds none of them."""
    assert not [
        name
        for name, value, _ in BROKEN_RECORDS
        if "u1" in getattr(decode(value), "error", "") or value == b"u1"
    ]


def test_a_tracking_event_needs_no_value() -> None:
    """Tracking events have no value, so one without is whole."""
    assert isinstance(decode(b'{"kind":"tracking","userKey":"u","creationDate":1,"key":"clicked"}'), Event)


def test_fields_twice_take_the_last() -> None:
    """Of two fields with the same name the last one counts, whatever the first one is."""
    decoded = decode(event(b'"variation":"","variation":"on"'))

    assert isinstance(decoded, Event)
    assert decoded.variation == "on"


def depth(value: bytes) -> int:
    """Return the levels of arrays and objects in JSON, counted byte by byte."""
    deepest = level = 0
    quoted = escaped = False
    for byte in value:
        if escaped:
            escaped = False
        elif quoted:
            escaped, quoted = byte == ord("\\"), byte != ord('"')
        elif byte == ord('"'):
            quoted = True
        elif byte in b"[{":
            level += 1
            deepest = max(deepest, level)
        elif byte in b"]}":
            level -= 1
    return deepest


def nested(levels: int, draw: random.Random) -> bytes:
    """JSON of about so many levels: arrays and objects as it comes, with brackets in strings and siblings."""
    text = draw.choice([b"1", b"[]", b"{}", b'"]}"'])
    for _ in range(levels):
        aside = draw.choice([b"", b"", b"", b"[[]],", b'"]]]}\\"",', b'"\\\\",', b'{"[":"{[["}, '])
        if draw.random() < 0.7:
            text = b"[" + aside + text + b"]"
        else:
            text = b"{" + (b'"a":' + aside if aside else b"") + b'"":' + text + b"}"
    return text


def test_whether_an_event_is_too_deep_is_counted() -> None:
    """Levels count, whatever stands in strings or beside them; the event's own braces are the first."""
    draw = random.Random(5)
    found = set()
    for levels in [*range(440, 560), *[5, 50, 5_000]]:
        value = b'{"value":' + nested(levels, draw) + b',"x":[{"y":"[["}]}'
        assert json.loads(value) if levels < 600 else value
        assert too_deep(value) == (depth(value) > DEEPEST), value
        found.add(too_deep(value))
    assert found == {False, True}


@pytest.mark.parametrize(("opened", "closed"), [(b"[", b"]"), (b'{"":', b"}"), (b'[{"":', b"}]")])
def test_the_smallest_event_that_is_too_deep_is_told(opened: bytes, closed: bytes) -> None:
    """No byte more than such a level needs; and the next smaller one passes."""
    pairs, odd = divmod(DEEPEST - 1, len(opened.translate(None, b'":')))
    inner = b"[]" if odd else b"1"
    event = b'{"value":%b}' % (opened * pairs + inner + closed * pairs)

    assert depth(event) == DEEPEST
    assert not too_deep(event)
    deeper = event.replace(inner, b"[%b]" % inner)
    assert depth(deeper) == DEEPEST + 1
    assert too_deep(deeper)
    assert any_too_deep([b"{}", deeper, b"1"])
    assert not any_too_deep([b"{}", event, b"1"])
    assert not any_too_deep([])


def test_depth_is_told_of_what_is_no_json_too() -> None:
    """Whatever it is, and however many quotes are in it: an answer, and at once."""
    for value in (
        b"[" * 5_000_000,
        b"]" * 5_000_000,
        b'"' + rb"\"" * 1_000_000 + b"[]" * 1_000_000,
        b"[]" * 1_000_000 + b'"' + rb"\"" * 1_000_000 + b"\\",
        b'"[' * 1_000_000,
        bytes(range(256)) * 10_000,
    ):
        assert too_deep(value) in (True, False)


def test_what_is_too_deep_does_not_depend_on_who_asks() -> None:
    """Decoding gives up where Python's stack ends; the answer is the same far up and far down on it."""

    def answers(frames: int) -> list[bool]:
        if frames:
            return answers(frames - 1)
        return [
            isinstance(decode(EVENT.replace(b"true", b"[" * deep + b"]" * deep)), Dead)
            for deep in range(480, 1_000)
        ]

    assert answers(0) == answers(300) == [deep >= 500 for deep in range(480, 1_000)]


@pytest.mark.parametrize("name", ["raw_event", "enriched_event"])
def test_the_avro_schema_has_the_fields_of_an_event(name: str) -> None:
    """The schemas in avro/ name exactly the fields that the worker knows, in the same order, and one more for
    what those cannot hold.
    """
    schema = json.loads(Path(f"avro/{name}.avsc").read_text())

    assert [*Event.__struct_fields__, "otherFields"] == [field["name"] for field in schema["fields"]]
