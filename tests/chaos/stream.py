"""The numbered events of the proof: what goes into the ingest topic, and what has to come out of it."""

import json
import re
from typing import NamedTuple

from tests.support.broken_records import ACCEPTED, BROKEN_RECORDS

FLAGS = """\
new-checkout:
  variations: {on: true, off: false}
  defaultRule: {variation: on}
  version: "1.4"
quiet:
  variations: {on: true, off: false}
  defaultRule: {variation: on}
  trackEvents: false
"""

# Broken events of a megabyte have a test of their own; here they would only cost time.
BROKEN = [
    (value, reason) for _, value, reason in BROKEN_RECORDS if reason != ACCEPTED and len(value or b"") < 500
]

_NUMBER = re.compile(rb'"userKey":"u-(\d+)"')

# A prime, so that each key gets events of every form.
KEYS = 499


class Case(NamedTuple):
    """Holds one record of the ingest topic and its fate. Without any of the last two it is dropped."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]
    enriched: bytes | None
    """The event as it has to be in the output topic, or equal to this as JSON."""
    reason: str | None
    """Why it has to become a dead letter."""


class _Form(NamedTuple):
    """An event without its number, as it goes in and as it comes out."""

    given: bytes
    enriched: bytes | None


def _text(**fields: object) -> bytes:
    known = {"kind": "feature", "userKey": "u-%d", "creationDate": 1618228297, "key": "new-checkout"}
    return json.dumps({**known, **fields}, separators=(",", ":")).encode()


def _forms() -> dict[int, _Form]:
    rest: dict[str, object] = {"contextKind": "user", "variation": "on", "default": False, "version": "1.4"}
    whole = {**rest, "value": True, "source": "SERVER", "unknown": {"to": ["us", 1.5]}}
    tracking = _text(
        kind="tracking", contextKind="user", key="clicked", trackingEventDetails={"price": 99.77}
    )
    unknown_flag = {**whole, "key": "of-another-file", "variation": "SdkDefault"}
    # Before noon, before midnight and the next day: three folders where time is in the name.
    later = [_text(**whole, creationDate=1618228297 + 43_200 * half_days) for half_days in range(3)]
    forms = {index: _Form(later[index % 3], later[index % 3]) for index in range(20)}
    return forms | {
        3: _Form(tracking, tracking),
        4: _Form(_text(**whole, key="quiet"), None),
        7: _Form(_text(value=True), _text(**rest, value=True, source="PROVIDER_CACHE")),
        8: _Form(_text(**{**unknown_flag, "variation": ""}), _text(**unknown_flag)),
        11: _Form(_text(**{**whole, "creationDate": 1618228297123}), _text(**whole)),
        14: _Form(_text(**whole, key="quiet"), None),
    }


_FORMS = _forms()


def case(number: int) -> Case:
    """Return the record with this number. Events carry it in `userKey`, broken records in their key."""
    headers = [("trace", b"%d" % number), ("empty", b"")] if number % 50 == 0 else []
    if number % 400 == 150:
        value, reason = BROKEN[number // 400 % len(BROKEN)]
        return Case(b"broken-%d" % number, value, headers, None, reason)
    given, enriched = _FORMS[number % 20]
    key = None if number % 100 == 35 else b"user-%d" % (number % KEYS)
    return Case(key, given % number, headers, enriched and enriched % number, None)


def number_of(value: bytes | None) -> int:
    """Return the number of an event, or -1 for anything else."""
    match = _NUMBER.search(value or b"")
    return int(match[1]) if match else -1
