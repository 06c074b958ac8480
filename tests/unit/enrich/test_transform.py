import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from flagstream.enrich.transform import Transform
from flagstream.flags import Flag, FlagSet
from flagstream.outcomes import Dead, Drop
from tests.support.broken_records import ACCEPTED, BROKEN_RECORDS

GOFF = Path("tests/goff")

FLAGS = FlagSet(
    {
        "checkout": Flag(True, False, "1.10", {"on": True, "off": False}),
        "limit": Flag(True, False, "", {"one": 1, "yes": True, "text": "1", "half": 0.5, "big": 10**20}),
        "banner": Flag(True, False, "7", {"a": {"n": 1, "l": [1, {"x": None}]}, "b": [1, 2], "c": [2, 1]}),
        "twins": Flag(True, False, "", {"a": "same", "b": "same", "c": "other"}),
        "off": Flag(True, True, "3", {"on": True}),
        "secret": Flag(False, False, "", {"on": True}),
    }
)
WHOLE = (
    b'{"kind":"feature","contextKind":"user","userKey":"u1","creationDate":1618228297,"key":"checkout",'
    b'"variation":"on","value":true,"default":false,"version":"1","source":"SERVER"}'
)

BESIDE = WHOLE.replace(b'"checkout"', b'"beside"').replace(b"}", b',"metadata":{"region":"us","n":2}}')
"""An event of a flag that no test names, which needs nothing and gets nothing."""


class InChunks(Transform):
    """Asked for one value, it asks for a chunk that holds the value among others, where `many` is fast."""

    _within = False

    def __call__(self, value: bytes | None) -> bytes | Drop | Dead:
        if self._within:  # `many` itself asks, for a value that is not for its fast path
            return super().__call__(value)
        self._within = True
        before, answer, after = self.many([BESIDE, value, BESIDE])
        self._within = False
        assert before == after == BESIDE
        return answer


@pytest.fixture(params=[Transform, InChunks], ids=["alone", "many"], name="make")
def make_of_either_kind(request: pytest.FixtureRequest) -> type[Transform]:
    """What is true of a record holds for it alone and in a chunk."""
    kind: type[Transform] = request.param
    return kind


@pytest.fixture
def transform(make: type[Transform]) -> Transform:
    return make(FLAGS)


def text(**fields: object) -> bytes:
    """WHOLE with other fields; a field that is ... is left out."""
    event = json.loads(WHOLE) | fields
    return json.dumps({name: value for name, value in event.items() if value is not ...}).encode()


def enriched(transform: Transform, value: bytes) -> dict[str, object]:
    output = transform(value)
    assert isinstance(output, bytes)
    fields: dict[str, object] = json.loads(output)
    return fields


# --- what passes untouched


def test_an_event_that_needs_nothing_is_the_same_object(transform: Transform) -> None:
    """A whole event is neither decoded further nor copied."""
    assert transform(WHOLE) is WHOLE


def test_what_a_real_relay_wrote_passes_byte_for_byte(make: type[Transform]) -> None:
    """Records that a GO Feature Flag relay wrote to Kafka come out as they are."""
    records = (GOFF / "relay-kafka/records.jsonl").read_bytes().splitlines()
    transform = make(FlagSet())

    assert [transform(record) for record in records] == records


@pytest.mark.parametrize("name", ["valid", "with_source_field"])
def test_the_collector_fixtures_come_out_as_upstream_exports_them(make: type[Transform], name: str) -> None:
    """The events of the relay's collector tests become what its exporter is expected to write."""
    folder = GOFF / "v1.55.2/cmd/relayproxy/testdata/goff/collect_eval_data"
    request = {"valid": "valid_request", "with_source_field": "request_with_source_field"}[name]
    collected = {"valid": "valid_collected_data", "with_source_field": "collected_data_with_source_field"}[
        name
    ]
    (event,) = json.loads((folder / f"{request}.json").read_text())["events"]

    output = enriched(make(FlagSet()), json.dumps(event).encode())

    assert output == json.loads((folder / f"{collected}.json").read_text())


@pytest.mark.parametrize(
    "value",
    [
        b"1e999",
        b"1.10",
        b"-0.0",
        b"100000000000000000000001",
        b'{"b":1.0,"a":2}',
        rb'"\u0041\/"',
        '"é\u2028"'.encode(),
    ],
)
def test_values_are_never_rewritten(transform: Transform, value: bytes) -> None:
    """Numbers, escapes and the order of maps stay as text, whatever is done to the event around them."""
    event = WHOLE.replace(b'"value":true', b'"value":' + value + b',"x":' + value)
    inside = event[1:-1]
    spliced = event.replace(b',"source":"SERVER"', b"")
    changed = event.replace(b'"SERVER"', b"null")
    broken = event.replace(b',"x"', b',\r\n"x"')

    assert transform(event) == event
    assert transform(spliced) == spliced[:-1] + b',"source":"PROVIDER_CACHE"}'
    assert transform(changed) == event.replace(b"SERVER", b"PROVIDER_CACHE")
    assert transform(broken) == b"{" + inside + b"}"


def test_white_space_and_line_breaks_make_one_line(transform: Transform) -> None:
    """A pretty-printed event becomes a JSON line; line breaks inside of strings are escapes and stay."""
    event = {**json.loads(WHOLE), "value": {"text": "a\nb", "list": [1, {}]}}
    output = transform(b"\r\n" + json.dumps(event, indent=2).encode() + b"\n ")

    assert output == json.dumps(event, separators=(",", ":")).encode()
    assert transform(b" \t" + WHOLE + b"\t ") == WHOLE


def test_unknown_fields_are_kept(transform: Transform) -> None:
    """A field that the worker does not know stays, spliced or decoded."""
    assert enriched(transform, text(team="x", source=...))["team"] == "x"
    assert enriched(transform, text(team="x", source=None))["team"] == "x"


# --- broken records


@pytest.mark.parametrize(
    ("name", "value", "reason"), BROKEN_RECORDS, ids=[name for name, _, _ in BROKEN_RECORDS]
)
def test_broken_records_never_raise(
    transform: Transform, name: str, value: bytes | None, reason: str
) -> None:
    """Each kind of broken record is a dead letter with its documented reason, or one line of JSON."""
    output = transform(value)

    assert not isinstance(output, Drop)
    assert reason == (output.reason if isinstance(output, Dead) else ACCEPTED)
    assert isinstance(output, Dead) or b"\n" not in output


DATES = [b"1618228297.0", b"1.618228297e9", b"1618228297000.0", b"16182282970E-1"]


@pytest.mark.parametrize("date", DATES)
def test_a_whole_number_in_another_form_is_written_as_an_integer(transform: Transform, date: bytes) -> None:
    """In a chunk and alone, with nothing else changed, and its flag is asked as ever."""
    value = WHOLE.replace(b"1618228297", date)
    secret = text(key="secret").replace(b"1618228297", date)

    assert transform.many([WHOLE, value, secret]) == [WHOLE, WHOLE, transform(secret)]
    assert transform(value) == WHOLE
    assert isinstance(transform(secret), Drop)


@pytest.mark.parametrize("number", [1, 10, 13, 32, 0x7B7B7B7B, 0xFFFFFFFF])
def test_what_a_registrys_json_serializer_wrote_is_taken(transform: Transform, number: int) -> None:
    """Whatever bytes the id of the schema has: those of a line break, white space, a brace, no text."""
    framed = b"\0" + number.to_bytes(4) + WHOLE
    date = framed.replace(b"1618228297", DATES[0])

    assert transform.many([WHOLE, framed, date]) == [WHOLE] * 3
    assert [transform(framed), transform(date)] == [WHOLE] * 2


def test_too_deep_is_no_matter_of_luck() -> None:
    """It is counted, so it is the same alone and in a chunk, whatever is added to the event, and however far
    down on Python's stack.
    """
    transform = Transform(FLAGS, metadata={"region": "eu"})
    events = []
    for depth in (1, 498, 499, 500, 501, 700, *range(900, 1_010)):
        nested = b'{"x":' * depth + b"1" + b"}" * depth
        for event in (text(source=None, variation=...), text(source=None, metadata={})):
            events.append(event.replace(b"true", nested).replace(b'"metadata": {}', b'"metadata":' + nested))

    def answers(frames: int) -> tuple[list[bool], list[bool]]:
        if frames:
            return answers(frames - 1)
        together = transform.many(events)
        alone = [transform(event) for event in events]
        assert {outcome.reason for outcome in together if isinstance(outcome, Dead)} == {"too_deep"}
        return [isinstance(found, bytes) for found in together], [isinstance(found, bytes) for found in alone]

    expected = [True] * 6 + [False] * (len(events) - 6)
    assert answers(0) == answers(300) == (expected, expected)


# --- tracking of flags


def test_an_untracked_flag_is_dropped(transform: Transform) -> None:
    """trackEvents: false drops the flag's evaluations."""
    assert transform(text(key="secret")) == Drop("untracked")


def test_an_unknown_flag_is_exported(transform: Transform) -> None:
    """Nobody said that it is not tracked."""
    assert transform(text(key="unheard-of")) == text(key="unheard-of")


def test_a_tracking_event_passes_whatever_its_key(transform: Transform) -> None:
    """The key of a tracking event is not a flag, though a flag may be called the same."""
    event = b'{"kind":"tracking","contextKind":"user","userKey":"u","creationDate":1618228297,"key":"secret"}'

    assert transform(event) is event


def test_a_tracking_event_gets_context_kind_and_seconds_only(make: type[Transform]) -> None:
    """Tracking events have no variation, version, source, default or metadata, and get none."""
    transform = make(FLAGS, metadata={"region": "eu"})
    event = {"kind": "tracking", "userKey": "u", "creationDate": 1618228297123, "key": "clicked"}

    output = enriched(transform, json.dumps(event).encode())

    assert output == event | {"creationDate": 1618228297, "contextKind": "user"}


def test_another_kind_is_a_feature_event_and_keeps_its_text(transform: Transform) -> None:
    """Only "tracking" is a tracking event."""
    assert enriched(transform, text(kind="Tracking", source=...))["kind"] == "Tracking"
    assert transform(text(kind="custom", key="secret")) == Drop("untracked")


def test_flags_can_be_swapped_while_running(transform: Transform) -> None:
    """The next event after an assignment is judged by the new flags."""
    assert transform(WHOLE) == WHOLE
    assert transform(text(key="secret")) == Drop("untracked")
    transform.flags = FlagSet({"checkout": Flag(False, False, "", {"on": True})})

    assert transform(WHOLE) == Drop("untracked")
    assert transform(text(key="secret")) == text(key="secret")


# --- the fields


@pytest.mark.parametrize("absent", [..., None, ""])
@pytest.mark.parametrize(
    ("fields", "variation", "unresolved"),
    [
        ({"key": "checkout", "value": True}, "on", 0),
        ({"key": "checkout", "value": True, "default": True}, "SdkDefault", 0),
        ({"key": "checkout", "value": True, "default": None}, "on", 0),
        ({"key": "checkout", "value": 1}, "", 1),
        ({"key": "unheard-of", "value": True}, "SdkDefault", 0),
        ({"key": "off", "value": True}, "SdkDefault", 0),
        ({"key": "limit", "value": 1}, "one", 0),
        ({"key": "limit", "value": 1.0}, "one", 0),
        ({"key": "limit", "value": True}, "yes", 0),
        ({"key": "limit", "value": "1"}, "text", 0),
        ({"key": "limit", "value": 0.5}, "half", 0),
        ({"key": "limit", "value": 1e20}, "big", 0),
        ({"key": "limit", "value": None}, "", 1),
        ({"key": "banner", "value": {"l": [1.0, {"x": None}], "n": 1}}, "a", 0),
        ({"key": "banner", "value": {"l": [True, {"x": None}], "n": 1}}, "", 1),
        ({"key": "banner", "value": [2, 1]}, "c", 0),
        ({"key": "twins", "value": "same"}, "", 1),
        ({"key": "twins", "value": "other"}, "c", 0),
    ],
)
def test_a_missing_variation_is_found_by_value(
    transform: Transform, fields: Mapping[str, object], variation: str, unresolved: int, absent: object
) -> None:
    """The only variation with that value, by type too; SdkDefault where the flag had no say; else empty."""
    for _ in range(2):  # the second time from what is remembered
        assert enriched(transform, text(**fields, variation=absent))["variation"] == variation
    assert transform.unresolved == 2 * unresolved


def test_a_given_variation_is_kept(transform: Transform) -> None:
    """The application knows best, also where the flag file says otherwise."""
    assert transform(text(variation="purple")) == text(variation="purple")


@pytest.mark.parametrize(
    ("key", "given", "version"),
    [
        ("checkout", ..., "1.10"),
        ("checkout", None, "1.10"),
        ("checkout", "", "1.10"),
        ("checkout", "2", "2"),
        ("checkout", 2, 2),
        ("checkout", 0, 0),
        ("checkout", 2.5, 2.5),
        ("limit", ..., ""),
        ("limit", None, ""),
        ("limit", "", ""),
        ("unheard-of", ..., ""),
        ("unheard-of", "9", "9"),
        ("off", ..., "3"),
    ],
)
def test_version(transform: Transform, key: str, given: object, version: object) -> None:
    """The event's own version, a number as it came, else the flag's, else an empty one."""
    assert enriched(transform, text(key=key, version=given))["version"] == version


@pytest.mark.parametrize("absent", [..., None, ""])
def test_source_and_context_kind_have_defaults(make: type[Transform], absent: object) -> None:
    """Where the event has none the source is the configured one, the context kind "user"."""
    output = enriched(make(FLAGS, default_source='a"b'), text(source=absent, contextKind=absent))

    assert (output["source"], output["contextKind"]) == ('a"b', "user")


@pytest.mark.parametrize(("given", "default"), [(..., False), (None, False), (True, True), (False, False)])
def test_default(transform: Transform, given: object, default: bool) -> None:
    """An event that does not say that it fell back to its default value did not."""
    assert enriched(transform, text(default=given))["default"] is default


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        (0, 0),
        (-5, -5),
        (9_999_999_999, 9_999_999_999),
        (10_000_000_000, 1_000_000_000),
        (1_733_230_547_728, 1_733_230_547),
        (1_733_230_547_728_123, 1_733_230_547),
        (9_223_372_036_854_775_807, 9_223_372_036),
    ],
)
def test_creation_date_is_cut_to_seconds(transform: Transform, given: int, seconds: int) -> None:
    """A date of more than ten digits is in finer units; its first ten digits are the seconds."""
    assert enriched(transform, text(creationDate=given))["creationDate"] == seconds


@pytest.mark.parametrize(
    ("own", "metadata"),
    [
        (..., {"region": "eu", "n": 1.5}),
        (None, {"region": "eu", "n": 1.5}),
        ({}, {"region": "eu", "n": 1.5}),
        ({"a": [1]}, {"a": [1], "region": "eu", "n": 1.5}),
        ({"region": "us"}, {"region": "us", "n": 1.5}),
        ({"region": None, "n": 2}, {"region": None, "n": 2}),
    ],
)
def test_static_metadata_fills_in(make: type[Transform], own: object, metadata: object) -> None:
    """Configured metadata is added key by key; what the event says itself wins."""
    transform = make(FLAGS, metadata={"region": "eu", "n": 1.5})

    assert enriched(transform, text(metadata=own))["metadata"] == metadata


@pytest.mark.parametrize("own", [..., None, {}, {"a": 1}])
def test_without_static_metadata_nothing_is_added(transform: Transform, own: object) -> None:
    """An event's metadata, or its lack, stays as it is."""
    assert transform(text(metadata=own)) == text(metadata=own)


def test_all_that_is_missing_is_filled_in_at_once(transform: Transform) -> None:
    """The least that an application can send becomes a whole event, after the text that it sent."""
    least = b'{"kind":"feature","userKey":"u1","creationDate":1618228297,"key":"checkout","value":true}'

    output = transform(least)

    assert isinstance(output, bytes)
    assert output.startswith(least[:-1] + b",")
    assert json.loads(output) == json.loads(WHOLE) | {"version": "1.10", "source": "PROVIDER_CACHE"}


def test_of_fields_twice_the_last_counts(transform: Transform) -> None:
    """Which of two same fields counts is one rule for the checks and for the output."""
    assert enriched(transform, WHOLE[:-1] + b',"variation":"","key":"off"}')["variation"] == "SdkDefault"
    assert transform(WHOLE[:-1] + b',"variation":""}') == WHOLE
