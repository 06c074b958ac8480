"""A window as Kafka records, with GO Feature Flag's key and value."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import msgspec

from flagstream.chunk import Partition, Record
from flagstream.formats.ids import with_ids
from flagstream.outcomes import Reject
from flagstream.record_limits import ENVELOPE
from flagstream.sinks.protocol import Preview
from flagstream.window import Manifest

RECORD_OVERHEAD = 200
"""Bytes of memory that Python takes for an encoded record besides its key and value, *measured*: 186."""


@dataclass(frozen=True, slots=True)
class Produce:
    """Holds a record to produce. ``offset`` is that of its event in the output topic."""

    key: bytes
    value: bytes
    offset: int = field(default=0, compare=False)


class Records(tuple[Produce, ...]):
    """A window's records. ``taken`` holds the indexes of the records that another cluster has acknowledged:
    this process does not send them again.
    """

    taken: set[int]

    def __new__(cls, records: Iterable[Produce]) -> "Records":
        made = super().__new__(cls, records)
        made.taken = set()
        return made


class _Keyed(msgspec.Struct, gc=False):
    userKey: str


_decode = msgspec.json.Decoder(_Keyed).decode


class RecordEncoder:
    """One window as records; a :class:`~flagstream.sinks.protocol.WindowEncoder`.

    It rejects a record that has no ``userKey``, that is larger than ``limit``, the topic's largest record, or
    that is in ``refused``: the keys and values that the topic is known to refuse, with the reason.
    """

    def __init__(
        self,
        partition: Partition,
        *,
        event_ids: bool,
        limit: int,
        refused: Mapping[tuple[bytes, bytes], str] = MappingProxyType({}),
    ) -> None:
        self._partition = partition
        self._event_ids = event_ids
        self._room = limit - ENVELOPE
        self._refused = refused
        self._records: list[Produce] = []
        self.size = 0

    @property
    def memory(self) -> int:
        return self.size + RECORD_OVERHEAD * len(self._records)

    def add(self, values: Sequence[bytes], records: Sequence[Record]) -> Sequence[Reject]:
        rejects: list[Reject] = []
        sent = with_ids(self._partition, values, records) if self._event_ids else values
        for index, value in enumerate(sent):
            try:
                key = _decode(value).userKey.encode()
            except (ValueError, RecursionError) as error:
                rejects.append(Reject(index, "not_an_event", str(error)))
                continue
            size = len(key) + len(value)
            if size > self._room:
                text = f"{size} bytes of key and value; the topic takes {self._room}"
                rejects.append(Reject(index, "too_large", text))
                continue
            if self._refused and (why := self._refused.get((key, value))) is not None:
                rejects.append(Reject(index, "refused_by_topic", why))
                continue
            self._records.append(Produce(key, value, records[index].offset() or 0))
            self.size += size
        return rejects

    def finish(self, manifest: Manifest) -> Records:
        return Records(self._records)


def preview(topic: str, payload: Sequence[Produce]) -> Preview:
    """Return the topic, and the first record as ``key: value``."""
    first = payload[0]
    return Preview((topic,), f"{first.key.decode()}: {first.value.decode()}")
