"""The event: one flag evaluation or one tracking call, as applications produce it (docs/events.md is for
users).

An event is decoded only as far as the worker must look into it. Everything else (the value, the contents of
maps, unknown fields) stays the text that came in, so nothing is rounded, reordered or lost on the way.
"""

import codecs
import re
from collections.abc import Sequence
from decimal import Decimal
from itertools import accumulate
from typing import Annotated, Final

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from flagstream.outcomes import Dead, DeadReason

TRACKING: Final = "tracking"
"""The `kind` of a tracking event. An event of any other kind is a feature event, as in GO Feature Flag."""


class JsonObject(Struct, gc=False):
    """Stands for any JSON object. It has no fields, so msgspec checks that it is one and builds nothing of
    its contents."""


DEEPEST: Final = 500
"""Most levels of arrays and objects in an event; its own braces are the first. Decoders give up at the end of
Python's stack, at 1,000 levels less those of their callers. So the caller would decide, and a plan that is
repeated could find another count. This limit leaves them half of the stack. (GO Feature Flag's decoder, Go's,
takes 10,000 levels.)
"""

TOO_DEEP: Final = Dead("too_deep", f"Arrays or objects are nested more than {DEEPEST} levels deep")

_ROOM: Final = 2 * (DEEPEST + 1)
"""Fewest bytes of a value that is too deep: a bracket on either side of each level."""
_STRINGS: Final = re.compile(rb'"[^"\\]*+(?:\\.?[^"\\]*+)*+"?', re.DOTALL)
_STEPS: Final = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_OTHERS: Final = bytes(set(range(256)) - _STEPS.keys())


def any_too_deep(values: Sequence[bytes]) -> bool:
    """Return whether any value is :func:`too_deep`. It takes 0.02 us a value if all are shorter than a
    kilobyte.
    """
    return max(map(len, values), default=0) >= _ROOM and any(map(too_deep, values))


def too_deep(value: bytes) -> bool:
    """Return whether ``value``, if it is JSON, nests deeper than ``DEEPEST``. Only its bytes decide.

    The first check is by size, 0.3 us from a kilobyte on: an array has at least two bytes, ``[]``, and all
    are between the first and the last bracket; an object has five, ``{"":}``, the innermost two. The second
    check counts brackets, 0.4 us a kilobyte. Only if there are enough brackets, those in strings are left
    out.
    """
    size = len(value)
    if size < _ROOM:
        return False
    arrays = (value.rfind(b"]") - value.find(b"[") + 1) // 2
    if arrays < 0:  # brackets in strings only
        arrays = 0
    if 2 * arrays + 5 * (DEEPEST - arrays) - 3 >= size:
        return False
    objects = value.count(b"{")
    if objects + arrays <= DEEPEST or objects + value.count(b"[") <= DEEPEST:
        return False
    brackets = _STRINGS.sub(b"", value).translate(None, _OTHERS)
    return max(accumulate(map(_STEPS.__getitem__, brackets)), default=0) > DEEPEST


Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]


class Event(Struct, gc=False, kw_only=True):
    """One decoded event; null and absent both mean "not given". Fields have the order in which GO Feature
    Flag writes them: msgspec decodes that order fastest.

    `creationDate` is unchanged, in seconds or finer. `value` is JSON text, and every feature event has it.
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
"""The errors that `decode_unchecked` raises. msgspec's are ValueErrors; a tombstone's None is a TypeError."""

decode_unchecked: Final = msgspec.json.Decoder(Event).decode
"""The bare decoder, for the hot path. It raises `DECODE_ERRORS`. It accepts a feature event without a value,
and invalid text that only `invalid_utf8` finds.
"""

MISSING_VALUE: Final = Dead("missing_field", "Object missing required field `value`")


def decode(value: bytes | None) -> Event | Dead:
    """Return the event in a record's value, or why there is none. It never raises."""
    if value is not None and too_deep(value):
        return TOO_DEEP
    try:
        event = decode_unchecked(value)  # type: ignore[arg-type]
    except DECODE_ERRORS as error:
        again = in_another_form(value, error)
        return rejection(value, error) if again is None else decode(again)
    if value is not None and (dead := invalid_utf8(value)):
        return dead
    if event.value is UNSET and event.kind != TRACKING:
        return MISSING_VALUE
    return event


FRAME: Final = 5
"""Bytes that serializers of a schema registry put before an event: 0, and the id of its schema in four bytes,
big-endian."""


def in_another_form(value: bytes | None, error: Exception) -> bytes | None:
    """Return the event in ``value``, which `decode_unchecked` refused with ``error``, in the form that it
    accepts; None if it is not an event in a known form.
    """
    if value is None:
        return None
    return without_frame(value) or _with_whole_date(value, error)


def without_frame(value: bytes) -> bytes | None:
    """Return the JSON in a value that a schema registry's JSON serializer wrote; None for any other value."""
    return value[FRAME:] if value[:1] == b"\0" and value[FRAME : FRAME + 1] == b"{" else None


def _with_whole_date(value: bytes, error: Exception) -> bytes | None:
    """Return ``value`` with `creationDate` as an integer, if it is a whole number in another form:
    1680246000.0, as languages without integers write it, or 1.680246e9. Return None for any other value.
    """
    if _DATE_AT not in str(error):
        return None
    try:
        members = _split(value)
        members["creationDate"] = Raw(b"%d" % whole_number(bytes(members["creationDate"])))
    except (ValueError, KeyError, RecursionError):
        return None
    return _encode(members)


_DATE_AT: Final = "`float` - at `$.creationDate`"
_split: Final = msgspec.json.Decoder(dict[str, Raw]).decode
_encode: Final = msgspec.json.encode
_DIGITS: Final = 19
"""Digits of the largest 64-bit integer."""


def whole_number(text: bytes) -> int:
    """Return the 64-bit integer that a JSON number stands for, in any form. Raises ValueError for any other
    JSON value: a fraction, or 1e999, which it does not expand.
    """
    if len(text) < _DIGITS and text.isdigit():
        return int(text)
    if not text[:1].isdigit() and text[:1] != b"-":
        raise ValueError("it is not a number")
    try:
        number = Decimal(text.decode())
        whole = not number or (number.adjusted() < _DIGITS and number == number.to_integral_value())
    except ArithmeticError:
        whole = False
    if not whole or not -(2**63) <= number < 2**63:
        raise ValueError("it is not a whole number of 64 bits")
    return int(number)


def invalid_utf8(value: bytes) -> Dead | None:
    """Return why ``value`` is not UTF-8; None if it is. msgspec does not check strings that nobody asked
    for.
    """
    if value.isascii():
        return None
    try:
        value.decode()
    except UnicodeDecodeError as error:
        return Dead("invalid_json", f"Not UTF-8: {error.reason} (byte {error.start})")
    return None


def rejection(value: bytes | None, error: Exception) -> Dead:
    """Return the reason why `decode_unchecked` refused `value`.

    msgspec's validation errors differ only by their text; the table of broken records in the tests pins it.
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
    return Dead("invalid_json", text + _hint(value))


def _validation_reason(text: str) -> DeadReason:
    if text.startswith("Object missing required field"):
        return "missing_field"
    if "out of range" in text or "<=" in text or ">=" in text:
        return "out_of_range"
    return "wrong_type" if " - at `$" in text else "not_an_object"


def _hint(value: bytes) -> str:
    """Return a hint that people would not guess from the decoder's words."""
    if value.startswith(codecs.BOM_UTF8):
        return "; it begins with a byte order mark"
    if value[:1] == b"\0" and len(value) > FRAME:
        number = int.from_bytes(value[1:FRAME])
        return (
            "; it begins as a schema registry's serializers begin a value (a zero byte and the schema id "
            f'{number}): for Avro set topics.ingest_format = "avro"'
        )
    # msgspec says "truncated" of a string that ends in half of a surrogate pair, which sends people
    # elsewhere.
    if rb"\ud" in value.lower():
        return "; or half of a surrogate pair (\\ud800 to \\udfff) stands alone"
    return ""
