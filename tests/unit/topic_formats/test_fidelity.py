"""An enriched event is the same JSON after a way through Avro."""

import io
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import fastavro
import pytest

from flagstream.enrich.transform import Transform
from flagstream.errors import ConfigError
from flagstream.flags import FlagSet
from flagstream.formats import avro_schemas as schemas
from flagstream.outcomes import Dead
from flagstream.topic_formats.decoding import FixedDecoder
from flagstream.topic_formats.encoding import FixedEncoder
from tests.support.broken_records import ACCEPTED, BROKEN_RECORDS

OURS = schemas.own("enriched_event")
FEATURE = (
    b'{"kind":"feature","contextKind":"user","userKey":"u","creationDate":1618228297,"key":"k",'
    b'"variation":"on","value":%b,"default":false,"version":"","source":"SERVER"%b}'
)


def exact(text: bytes) -> Any:
    """Return JSON with no number rounded."""
    return json.loads(text, parse_float=Decimal, parse_int=Decimal)


def there_and_back(text: bytes, schema: str = OURS) -> bytes:
    encoded = FixedEncoder(schema).encode(text)
    assert isinstance(encoded, bytes)
    [decoded] = FixedDecoder(schemas.parsed(schema)).decode([encoded])
    assert isinstance(decoded, bytes)
    return decoded


@pytest.mark.parametrize(
    "value", [b"null", b"true", b'"a\\u0000\\n\xc3\xa9"', b"1e400", b"1.10", b'{"b":[{}]}']
)
def test_a_value_of_any_type_stays_what_it_is(value: bytes) -> None:
    """Texts, maps, null and numbers beyond a double."""
    event = FEATURE % (value, b"")

    assert there_and_back(event) == event


@pytest.mark.parametrize(
    "more",
    [
        b',"n":12345678901234567890123,"x":null,"":[1.0]',
        b',"metadata":{"b":1,"a":2.50}',
        b',"metadata":null,"evaluationContext":null',
        b',"otherFields":{"kind":"mine"}',
        b',"version":1.10,"variation":null,"default":null,"source":null',
    ],
    ids=["unknown", "map", "null-maps", "named-like-ours", "other-json"],
)
def test_a_field_that_the_schema_has_no_place_for_stays(more: bytes) -> None:
    """Unknown fields, nulls that are written out, and a version that is a number."""
    event = FEATURE % (b"1", more)

    assert exact(there_and_back(event)) == exact(event)


def test_a_tracking_event_stays_what_it_is() -> None:
    """It has no value and no variation, and gets none."""
    event = (
        b'{"kind":"tracking","contextKind":"anonymousUser","userKey":"ABCD","creationDate":1617970547,'
        b'"key":"clicked","evaluationContext":{"targetingKey":"ABCD"},"trackingEventDetails":{"v":99.77}}'
    )

    assert there_and_back(event) == event


def test_a_relays_records_stay_what_they_are() -> None:
    """Whatever a real relay wrote and the enrich stage lets pass."""
    lines = Path("tests/goff/relay-kafka/records.jsonl").read_bytes().splitlines()
    events = [event for event in Transform(FlagSet({})).many(lines) if isinstance(event, bytes)]

    assert events
    assert [exact(there_and_back(event)) for event in events] == [exact(event) for event in events]


@pytest.mark.parametrize(
    "value", [pytest.param(value, id=name) for name, value, outcome in BROKEN_RECORDS if outcome == ACCEPTED]
)
def test_whatever_the_enrich_stage_lets_pass_stays_what_it_is(value: bytes) -> None:
    """The odd but accepted ones among the broken records."""
    event = Transform(FlagSet({}))(value)
    assert isinstance(event, bytes)

    assert exact(there_and_back(event)) == exact(event)


@pytest.mark.parametrize("number", [1, 2])
def test_both_versions_of_the_schema_read_each_others_data(number: int) -> None:
    """What fastavro makes of the rules that the check of the history applies."""
    former = fastavro.parse_schema(json.loads(Path(f"avro/history/enriched_event.{number}.avsc").read_text()))
    encoded = FixedEncoder(OURS).encode(FEATURE % (b"1", b""))
    assert isinstance(encoded, bytes)
    record: Any = fastavro.schemaless_reader(io.BytesIO(encoded), schemas.parsed(OURS), former)

    assert record["value"] == "1"


def test_a_schema_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    """Editors of Windows write one."""
    file = tmp_path / "event.avsc"
    file.write_bytes(schemas.own("enriched_event").encode("utf-8-sig"))

    schemas.check_output(schemas.from_file(file, "topics.output_schema"), "topics.output_schema")


def test_a_schema_for_output_needs_a_place_for_other_fields() -> None:
    """Version 1 would lose them, so it is refused; so is one whose fields cannot be filled."""
    first = Path("avro/history/enriched_event.1.avsc").read_text()
    strange = json.loads(OURS)
    strange["fields"][0]["type"] = "bytes"
    strange["fields"].append({"name": "region", "type": "string"})

    schemas.check_output(OURS, "s")
    with pytest.raises(ConfigError, match="otherFields"):
        schemas.check_output(first, "s")
    with pytest.raises(ConfigError) as caught:
        schemas.check_output(json.dumps(strange), "s")
    assert caught.value.problems == [
        's: "kind" must be of the type "string"',
        's: "region" is not a field of an enriched event and has no default',
    ]


def test_a_shorter_schema_for_output_loses_nothing() -> None:
    """What it has no field for goes into the one for others."""
    schema = json.loads(OURS)
    schema["fields"] = [field for field in schema["fields"] if field["name"] in ("kind", "otherFields")]
    event = FEATURE % (b"1.10", b',"n":1')

    assert exact(there_and_back(event, json.dumps(schema))) == exact(event)


def test_bytes_that_are_no_record_are_dead_letters_and_nothing_else() -> None:
    """Cut off, with something after it, JSON, noise: never an exception, never an event. What has no bytes is
    left to the stage.
    """
    encoded = FixedEncoder(OURS).encode(FEATURE % (b"1", b""))
    assert isinstance(encoded, bytes)
    decode = FixedDecoder(schemas.parsed(OURS)).decode
    cut = [encoded[:length] for length in range(1, len(encoded))]

    for dead in decode([*cut, encoded + b"x", b"{}", b"\xff" * 99]):
        assert isinstance(dead, Dead)
        assert dead.reason == "invalid_avro"
    assert decode([None, b""]) == [None, b""]


@pytest.mark.parametrize("text", ['1,"key":"other"', "{", "", "NaN", "[" * 100_000])
def test_text_that_is_no_json_ends_no_field(text: str) -> None:
    """A field of JSON text is read before it becomes part of an event."""
    record = {"kind": "f", "contextKind": "user", "userKey": "u", "creationDate": 1, "key": "k"}
    assert isinstance(decoded({**record, "value": text}), Dead)
    assert isinstance(decoded({**record, "otherFields": text}), Dead)


def test_json_text_with_line_breaks_becomes_one_line() -> None:
    """An event is one line of an object."""
    record = {"kind": "f", "contextKind": "user", "userKey": "u", "creationDate": 1, "key": "k"}

    event = decoded({**record, "value": '{\n  "a": 1\r\n}'})

    assert isinstance(event, bytes)
    assert b"\n" not in event
    assert exact(event)["value"] == {"a": 1}


def decoded(record: dict[str, Any]) -> bytes | Dead | None:
    out = io.BytesIO()
    schema = schemas.parsed(OURS)
    fastavro.schemaless_writer(out, schema, record)
    return FixedDecoder(schema).decode([out.getvalue()])[0]
