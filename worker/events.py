"""The event: one flag evaluation or one tracking call, as applications produce it (docs/events.md is for
users).

An event is decoded only as far as the worker must look into it. What it merely carries (the value, the
contents of maps, fields it does not know) stays the text that came in, so nothing is rounded, reordered or
lost on the way.
"""

from dataclasses import dataclass
from typing import Annotated, Final, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

TRACKING: Final = "tracking"
"""The `kind` of a tracking event. An event of any other kind is a feature event, as in GO Feature Flag."""

Reason = Literal[
    "tombstone",
    "empty",
    "invalid_json",
    "not_an_object",
    "missing_field",
    "wrong_type",
    "out_of_range",
    "too_deep",
    "too_large",
    "invalid_headers",
    "unknown_schema",
    "invalid_avro",
]
"""Why a record is a dead letter: its header and a metric label, so names stay as they are. `too_large` is
said of records that the topic refuses, `invalid_headers` of those that the client cannot read, and the last
two of topics in Avro, not by the decoder."""


@dataclass(frozen=True, slots=True)
class Dead:
    """A record that cannot be processed. `error` tells a person what is wrong and names the field, if there
    is one."""

    reason: Reason
    error: str


class JsonObject(Struct, gc=False):
    """Any JSON object. It has no fields, so msgspec checks that it is one and builds nothing of its
    contents."""


Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]


class Event(Struct, gc=False, kw_only=True):
    """One decoded event; null and absent both mean "not given". Fields stand in the order GO Feature Flag
    writes them, which is the order msgspec decodes fastest.

    `creationDate` is as it came, in seconds or finer. `value` is JSON text, and every feature event has it.
    """

    kind: str
    contextKind: str | UnsetType | None = UNSET
    userKey: str
    creationDate: Int64
    key: str
    variation: str | UnsetType | None = UNSET
    value: Raw | UnsetType = UNSET
    default: bool | UnsetType | None = UNSET
    version: str | int | float | UnsetType | None = UNSET
    source: str | UnsetType | None = UNSET
    metadata: JsonObject | UnsetType | None = UNSET
    evaluationContext: JsonObject | UnsetType | None = UNSET
    trackingEventDetails: JsonObject | UnsetType | None = UNSET


DECODE_ERRORS: Final = (ValueError, RecursionError, TypeError)
"""What `decode_unchecked` raises. msgspec's errors are ValueErrors; a tombstone's None is a TypeError."""

decode_unchecked: Final = msgspec.json.Decoder(Event).decode
"""The bare decoder, for the hot path. It raises `DECODE_ERRORS`, and lets pass a feature event without a
value and what `invalid_utf8` finds."""

MISSING_VALUE: Final = Dead("missing_field", "Object missing required field `value`")


def decode(value: bytes | None) -> Event | Dead:
    """The event in a record's value, or why there is none. Never raises."""
    try:
        event = decode_unchecked(value)  # type: ignore[arg-type]
    except DECODE_ERRORS as error:
        return rejection(value, error)
    if value is not None and (dead := invalid_utf8(value)):
        return dead
    if event.value is UNSET and event.kind != TRACKING:
        return MISSING_VALUE
    return event


def invalid_utf8(value: bytes) -> Dead | None:
    """msgspec skips over strings that nobody asked for without a look at their bytes. This looks."""
    if value.isascii():
        return None
    try:
        value.decode()
    except UnicodeDecodeError as error:
        return Dead("invalid_json", f"Not UTF-8: {error.reason} (byte {error.start})")
    return None


def rejection(value: bytes | None, error: Exception) -> Dead:
    """Name what `decode_unchecked` found wrong with `value`.

    msgspec tells its validation errors apart by their text only; the table of broken records in the tests
    pins it.
    """
    if value is None:
        return Dead("tombstone", "The record has no value")
    text = str(error)
    match error:
        case RecursionError():
            return Dead("too_deep", "Arrays or objects are nested too deeply")
        case UnicodeDecodeError():
            return Dead("invalid_json", f"Not UTF-8: {error.reason}")
        case msgspec.ValidationError():
            return Dead(_validation_reason(text), text)
    if not value.strip():
        return Dead("empty", "The record's value is empty")
    return Dead("invalid_json", text + _surrogate_hint(value))


def _validation_reason(text: str) -> Reason:
    if text.startswith("Object missing required field"):
        return "missing_field"
    if "out of range" in text or "<=" in text or ">=" in text:
        return "out_of_range"
    return "wrong_type" if " - at `$" in text else "not_an_object"


def _surrogate_hint(value: bytes) -> str:
    # msgspec says "truncated" of a string that ends in half of a surrogate pair, which sends people
    # elsewhere.
    return (
        "; or half of a surrogate pair (\\ud800 to \\udfff) stands alone" if rb"\ud" in value.lower() else ""
    )
