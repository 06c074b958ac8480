"""Ids of exported events, by which a receiver recognises an event that comes twice."""

from collections.abc import Sequence

import msgspec

from flagstream.chunk import Partition, Record


class _OwnId(msgspec.Struct, gc=False):
    id: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_decode = msgspec.json.Decoder(_OwnId).decode


def with_ids(partition: Partition, values: Sequence[bytes], records: Sequence[Record]) -> list[bytes]:
    """Return each JSON object of ``values`` with ``"id":"topic-partition-offset"`` as its first member.

    The id is the same on every try. An event that has an ``id`` already keeps it: its producer's id means
    more than ours.
    """
    start = f'{{"id":"{partition}-'
    return [
        value if b'"id"' in value and _has_id(value) else _spliced(start, value, record)
        for value, record in zip(values, records, strict=True)
    ]


def _spliced(start: str, value: bytes, record: Record) -> bytes:
    rest = value[1:].lstrip()
    comma = b"" if rest.startswith(b"}") else b","
    return f'{start}{record.offset()}"'.encode() + comma + rest


def _has_id(value: bytes) -> bool:
    return _decode(value).id is not msgspec.UNSET
