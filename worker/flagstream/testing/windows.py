"""Records and windows for tests, as the engine makes them."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from flagstream.chunk import Headers, Partition
from flagstream.sinks.protocol import WindowEncoder
from flagstream.window import ContentDigest, Manifest, OffsetRange

PARTITION = Partition("evaluations", 3)

NEIGHBOURS = (
    Partition("a", 1),
    Partition("a", 11),
    Partition("a", 0),
    Partition("a-1", 1),
    Partition("a.1", 1),
    Partition("a-1-1", 1),
    Partition("1", 1),
)
"""Partitions whose names are easily taken for each other's."""


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """A record as Kafka would return it."""

    at: int
    content: bytes

    def offset(self) -> int:
        return self.at

    def key(self) -> bytes | None:
        return None

    def value(self) -> bytes:
        return self.content

    def headers(self) -> Headers | None:
        return None

    def timestamp(self) -> tuple[int, int]:
        return (1, 1_700_000_000_000)


@dataclass(frozen=True, slots=True)
class Window:
    """A closed window that is ready to deliver, and the values that it exports."""

    manifest: Manifest
    payload: Any
    exported: list[bytes]


def event(number: int, value: str = '"on"') -> bytes:
    """Return an enriched event whose ``userKey`` no other number has."""
    return (
        f'{{"kind":"feature","contextKind":"user","userKey":"user-{number}",'
        f'"creationDate":{1_700_000_000 + number % 1_000_000},"key":"new-checkout","variation":"on",'
        f'"value":{value},"default":false,"version":"1.4","source":"SERVER"}}'
    ).encode()


def events(count: int, first: int = 0) -> list[bytes]:
    return [event(first + number) for number in range(count)]


def fill(
    sink: Any,
    values: Sequence[bytes],
    *,
    partition: Partition = PARTITION,
    start: int = 0,
    offsets: Sequence[int] | None = None,
    cuts: Iterable[int] = (),
) -> Window:
    """Make a window as the engine does: begin, add chunk by chunk, digest what was not rejected, finish.

    ``offsets`` are the records' (without gaps from ``start`` when absent); ``cuts`` are indexes into
    ``values`` at which a new chunk begins.
    """
    at = list(offsets) if offsets is not None else list(range(start, start + len(values)))
    records = [StoredRecord(offset, value) for offset, value in zip(at, values, strict=True)]
    encoder: WindowEncoder[Any] = sink.begin(partition, start)
    digest, exported = ContentDigest(), list[bytes]()
    edges = [0, *cuts, len(values)]
    for low, high in pairwise(edges):
        rejected = {reject.index for reject in encoder.add(values[low:high], records[low:high])}
        kept = [value for index, value in enumerate(values[low:high]) if index not in rejected]
        digest.update(kept)
        exported += kept
    range_ = OffsetRange(partition, start, at[-1] + 1)
    manifest = Manifest(range_, len(exported), digest.hexdigest(), sink.fingerprint)
    return Window(manifest, encoder.finish(manifest), exported)


def noise(number: int) -> bytes:
    """Return an event that hardly compresses, the same for the same ``number``."""
    return event(number, f'"{random.Random(number).randbytes(64).hex()}"')
