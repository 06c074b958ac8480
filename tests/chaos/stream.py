"""The numbered events of the proof: what goes into the ingest topic, and what has to come out of it."""

import json
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

# A prime, so that each key gets events of every form.
KEYS = 499

_DATE = 1618228297


class Case(NamedTuple):
    """One record of the ingest topic and its fate. Exactly one of the last two is set, or none: dropped."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]
    enriched: dict[str, object] | None
    """The event as it has to be in the output topic."""
    reason: str | None
    """Why it has to become a dead letter."""


def case(number: int) -> Case:
    """The record with this number. Events carry it in `userKey`, broken records in their key."""
    if number % 400 == 150:
        value, reason = BROKEN[number // 400 % len(BROKEN)]
        return Case(b"broken-%d" % number, value, _trace(number), None, reason)
    form = number % 20
    event: dict[str, object] = {
        "kind": "feature",
        "contextKind": "user",
        "userKey": f"u-{number}",
        "creationDate": _DATE,
        "key": "new-checkout",
        "variation": "on",
        "value": True,
        "default": False,
        "version": "1.4",
        "source": "SERVER",
        "extra": {"n": number},
    }
    given, kept = event, True
    if form in (4, 14):
        event["key"], kept = "quiet", False
    elif form == 3:
        event = given = {
            "kind": "tracking",
            "contextKind": "user",
            "userKey": f"u-{number}",
            "creationDate": _DATE,
            "key": "clicked",
            "trackingEventDetails": {"price": 99.77},
        }
    elif form == 7:
        given = {name: event[name] for name in ("kind", "userKey", "creationDate", "key", "value")}
        event = {**given, "contextKind": "user", "variation": "on", "default": False, "version": "1.4"}
        event["source"] = "PROVIDER_CACHE"
    elif form == 8:
        given = {**event, "key": "of-another-file", "variation": ""}
        event = {**given, "variation": "SdkDefault"}
    elif form == 11:
        given = {**event, "creationDate": _DATE * 1000 + 123}
    key = None if number % 100 == 35 else b"user-%d" % (number % KEYS)
    text = json.dumps(given, separators=(",", ":")).encode()
    return Case(key, text, _trace(number) if number % 50 == 25 else [], event if kept else None, None)


def _trace(number: int) -> list[tuple[str, bytes]]:
    return [("trace", b"%d" % number), ("empty", b"")]
