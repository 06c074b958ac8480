"""Which records of the output topic can be exported at all: one JSON object on one line each."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from worker.chunk import Record
from worker.sinks.protocol import Reject


class _AnyObject(msgspec.Struct, gc=False):
    """Any JSON object: all its fields are checked for grammar and skipped."""


_CHUNK = msgspec.json.Decoder(list[_AnyObject])
_ONE = msgspec.json.Decoder(_AnyObject)


@dataclass(frozen=True, slots=True)
class Screened:
    """Records that can be exported, with their values, and those that cannot, by their index in the input."""

    values: list[bytes]
    records: Sequence[Record]
    rejects: list[Reject]


def screen(records: Sequence[Record]) -> Screened:
    """Sort out tombstones and foreign records: whatever else writes to the output topic must not end up in an
    archive.

    A whole chunk is checked by a few calls into C. Only if it does not pass are its records looked at one by
    one.
    """
    values = [record.value() for record in records]
    try:
        lines = b"\n".join(values)  # type: ignore[arg-type]  # a tombstone is a TypeError
        n = len(values) - 1
        framed = lines.count(b"\n") == lines.count(b"}\n{") == n and lines[:1] == b"{" and lines[-1:] == b"}"
        if framed and len(_CHUNK.decode(b"[" + lines.replace(b"\n", b",") + b"]")) == n + 1:
            return Screened(values, records, [])  # type: ignore[arg-type]
    except (TypeError, ValueError, RecursionError):
        pass
    return _one_by_one(records, values)


def _one_by_one(records: Sequence[Record], values: Sequence[bytes | None]) -> Screened:
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
    return Screened(good, kept, rejects)


def _fault(value: bytes | None) -> tuple[str, str] | None:
    if value is None:
        return "tombstone", "the record has no value"
    if b"\n" in value or value[:1] != b"{" or value[-1:] != b"}":
        return "foreign", "the value is no JSON object on one line"
    try:
        _ONE.decode(value)
    except (ValueError, RecursionError) as error:
        return "foreign", f"the value is no JSON object: {error}"
    return None
