"""Which records of the output topic can be exported at all: one JSON object on one line each."""

import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from flagstream.chunk import Record
from flagstream.events import FRAME, TOO_DEEP, TRACKING, any_too_deep, too_deep
from flagstream.outcomes import Dead, Reject
from flagstream.topic_formats.protocol import Decoder


class _AnyObject(msgspec.Struct, gc=False):
    """Any JSON object: all its fields are checked for grammar and skipped."""


class _Kind(msgspec.Struct, gc=False):
    # Any type: a foreign object may use the word for something else.
    kind: object = None


_kind = msgspec.json.Decoder(_Kind).decode
_check = msgspec.json.Decoder(_AnyObject).decode


AVRO_EVENT = "avro_event"
"""Reason of a reject in a topic that is JSON, which the engine does not make a dead letter of: it is an
event, from when the topic was Avro.
"""

_avro_event = re.compile(rb"(\0....)?(\x0efeature|\x10tracking)", re.DOTALL).match
"""How a value of ours in Avro begins, with or without the id of its schema: `kind` is the first field of all
versions, its length in front. Other Avro is as foreign as anything else.
"""

Events = Literal["both", "feature", "tracking"]
"""Which kinds of events a sink exports."""


@dataclass(frozen=True, slots=True)
class Validated:
    """Records that can be exported, with their values, and those that cannot, by their index in the input."""

    values: list[bytes]
    records: Sequence[Record]
    rejects: list[Reject]

    def of_kind(self, events: Events) -> "Validated":
        """Without the events that the sink leaves out; they are neither exported nor dead letters."""
        if events == "both":
            return self
        wanted = events == "tracking"
        try:
            tracking = [event.kind == TRACKING for event in map(_kind, self.values)]
        except ValueError:
            tracking = [_is_tracking(value) for value in self.values]
        kept = [i for i, found in enumerate(tracking) if found == wanted]
        return Validated([self.values[i] for i in kept], [self.records[i] for i in kept], self.rejects)


def validate(
    records: Sequence[Record], decoder: Decoder | None = None, unknown: set[int] | None = None
) -> Validated:
    """Sort out tombstones and foreign records: whatever else writes to the output topic must not end up in an
    archive.

    All records of a chunk are checked in one go; only if one does not pass they are looked at one by one.
    Those of a topic that is not JSON are decoded first: the values are the JSON text then. For ``unknown``
    see the decoder.
    """
    if decoder is not None:
        return _decoded(records, decoder.decode([record.value() for record in records], unknown))
    values = [record.value() for record in records]
    try:
        lines = b"".join(values)  # type: ignore[arg-type]  # a tombstone is a TypeError
        bare = list(map(bytes.strip, values)) == values  # type: ignore[arg-type]
        if bare and b"\n" not in lines and (lines.isascii() or lines.decode()):
            deque(map(_check, values), maxlen=0)  # type: ignore[arg-type]  # the fastest loop there is
            if not any_too_deep(values):  # type: ignore[arg-type]
                return Validated(values, records, [])  # type: ignore[arg-type]
    except (TypeError, ValueError, RecursionError):
        pass
    return _one_by_one(records, values)


def _is_tracking(value: bytes) -> bool:
    """Of a value that passed: what a foreign object calls its kind may be a number that nothing can hold."""
    try:
        return _kind(value).kind == TRACKING
    except ValueError:
        return False


def _decoded(records: Sequence[Record], texts: Sequence[bytes | Dead | None]) -> Validated:
    values: list[bytes] = []
    kept: list[Record] = []
    rejects: list[Reject] = []
    for index, text in enumerate(texts):
        if isinstance(text, Dead):
            rejects.append(Reject(index, text.reason, text.error))
        elif not text:
            rejects.append(Reject(index, "tombstone", "the record has no value"))
        elif too_deep(text):
            rejects.append(Reject(index, TOO_DEEP.reason, TOO_DEEP.error))
        else:
            values.append(text)
            kept.append(records[index])
    return Validated(values, kept, rejects)


def _one_by_one(records: Sequence[Record], values: Sequence[bytes | None]) -> Validated:
    good: list[bytes] = []
    kept: list[Record] = []
    rejects: list[Reject] = []
    for index, value in enumerate(values):
        fault = _fault(value)
        if fault is not None or value is None:
            rejects.append(Reject(index, *(fault or ("tombstone", "no value"))))
        else:
            good.append(value)
            kept.append(records[index])
    return Validated(good, kept, rejects)


def _fault(value: bytes | None) -> tuple[str, str] | None:
    if value is None:
        return "tombstone", "the record has no value"
    if _avro_event(value):
        return AVRO_EVENT, "the value is an event in Avro"
    if too_deep(value):
        return TOO_DEEP.reason, TOO_DEEP.error
    if b"\n" in value or value != value.strip():
        return "foreign", "the value is not one line without white space around it"
    try:
        value.decode()
        _check(value)
    except (ValueError, RecursionError) as error:
        if value[:1] == b"\0" and len(value) > FRAME:
            return (
                "foreign",
                "the value begins with a zero byte and the id of a schema: a registry's serializer wrote it",
            )
        return "foreign", f"the value is no JSON object: {error}"
    return None
