import json
from pathlib import Path

import pytest

from tests.support.broken_records import ACCEPTED, BROKEN_RECORDS, EVENT, event
from worker.events import Dead, Event, decode


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
    """The text of a dead letter tells a person where to look."""
    decoded = decode(value)

    assert isinstance(decoded, Dead)
    assert error in decoded.error


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


@pytest.mark.parametrize("name", ["raw_event", "enriched_event"])
def test_the_avro_schema_has_the_fields_of_an_event(name: str) -> None:
    """The schemas in avro/ name exactly the fields that the worker knows, in the same order, and one more for
    what those cannot hold.
    """
    schema = json.loads(Path(f"avro/{name}.avsc").read_text())

    assert [*Event.__struct_fields__, "otherFields"] == [field["name"] for field in schema["fields"]]
