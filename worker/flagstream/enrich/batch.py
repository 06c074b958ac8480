"""A chunk of the ingest topic becomes a batch of records for the output topic."""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from operator import length_hint
from typing import Any

from flagstream.chunk import Chunk, Partition, Record
from flagstream.dead_letters import DeadLetter, dead_letter, forget_headers, size
from flagstream.enrich.transform import Transform
from flagstream.memory import Weight
from flagstream.outcomes import Dead, Drop
from flagstream.record_limits import ENVELOPE
from flagstream.topic_formats.protocol import Decoder, Encoder

PIPELINE = 18 * 1024**2
"""Bytes that enriched records may take while a transaction is committed: 100 ms of work at full speed. A
small share of the memory budget leaves less.
"""
RECORD_OVERHEAD = 250
"""Bytes that a waiting record takes beside its value: the dictionary for ``produce_batch``, the key."""
LETTER_OVERHEAD = 1_500
"""Bytes that a waiting dead letter takes beside its value: its headers, *measured* of tombstones."""
BATCH_OVERHEAD = 1_000
"""Bytes that a batch takes beside its records; it may have none."""
SURELY_FITS = 1_000
"""Bytes of key and value that fit whatever the topic's limit is: it leaves at least so many."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What a chunk became: records for the output topic, and dead letters, each in the chunk's order."""

    partition: Partition
    epoch: int
    start: int
    end: int
    records: list[dict[str, Any]]
    """Arguments of ``produce``, or of ``produce_batch`` where ``plain``."""
    plain: bool
    """No record has headers or keeps its timestamp: ``produce_batch``, which knows neither, will do."""
    dead: list[DeadLetter]
    outcomes: Counter[tuple[str, str]]
    bytes: int
    offsets: Sequence[int] = ()
    """The offsets of ``records``; only of a partition that has transactions of its own."""
    weight: Weight = field(default_factory=Weight, compare=False)
    """The weight of the chunk; whoever is done with the batch releases it."""

    @property
    def count(self) -> int:
        """The number of records and dead letters."""
        return len(self.records) + len(self.dead)

    @property
    def memory(self) -> int:
        """The bytes that the batch takes, about."""
        overhead = RECORD_OVERHEAD * len(self.records) + LETTER_OVERHEAD * len(self.dead)
        return self.bytes + overhead + BATCH_OVERHEAD


class Pipeline(asyncio.Queue[Batch]):
    """Batches that wait for their transaction. They hold from one record to thousands, so memory decides
    when the queue is full: ``maxsize`` counts bytes.
    """

    _memory = 0

    def full(self) -> bool:
        return self._memory >= self.maxsize

    def _put(self, item: Batch) -> None:
        self._memory += item.memory
        super()._put(item)

    def _get(self) -> Batch:
        batch: Batch = super()._get()
        self._memory -= batch.memory
        return batch


class Enricher:
    """Decodes, drops what is not tracked, enriches and encodes.

    ``limit`` returns the largest record, in bytes, that the output and the dead-letter topic take. ``alone``
    returns whether a partition has transactions of its own: then a batch needs the offsets of its records.
    """

    def __init__(
        self,
        transform: Transform,
        *,
        keep_timestamps: bool,
        limit: Callable[[], int],
        alone: Callable[[Partition], bool],
    ) -> None:
        self.decoder: Decoder | None = None
        self.encoder: Encoder | None = None
        """Of topics that are not JSON; set before the first chunk."""
        self.refused: dict[Partition, dict[int, str]] = {}
        """Offsets of records that the output topic refuses, with the reason: they become dead letters."""
        self._alone = alone
        self._transform = transform
        self._keep_timestamps = keep_timestamps
        self._limit = limit

    async def prepare(self, chunk: Chunk) -> None:
        """Get what the chunk needs to be decoded, such as schemas. Waits until it is there."""
        if self.decoder is not None:
            await self.decoder.prepare([record.value() for record in chunk.records])

    def enrich(self, chunk: Chunk) -> Batch:
        """Return what the records of ``chunk`` become. It has no effect but on the count of unresolved
        variations.
        """
        records = chunk.records
        headers, unreadable = _headers_among(records)
        plain = not headers and not self._keep_timestamps
        values = [record.value() for record in records]
        json = self.decoder is None and self.encoder is None
        outcomes = self._transform.many(values) if json else self._recoded(values)
        for index in unreadable:
            if isinstance(outcomes[index], bytes):
                outcomes[index] = Dead("invalid_headers", "The name of a header is not UTF-8")
        for index, error in self._refused_among(chunk):
            if isinstance(outcomes[index], bytes):
                outcomes[index] = Dead("refused_by_topic", error)
        sizes = _sizes(outcomes)
        whole = len(sizes) == len(records)
        keys = [record.key() for record in records]
        largest = max(sizes, default=0) + max(map(len, filter(None, keys)), default=0)
        if largest > SURELY_FITS or not plain:
            outcomes = list(map(self._sized, records, outcomes))
            whole = False
        if plain and whole:  # the common case, for which each check of a record costs
            made = [{"value": outcome, "key": key} for key, outcome in zip(keys, outcomes, strict=True)]
        elif plain:
            made = [
                {"value": outcome, "key": key}
                for key, outcome in zip(keys, outcomes, strict=True)
                if outcome.__class__ is bytes
            ]
        else:
            made = [
                self._whole(record, outcome)
                for record, outcome in zip(records, outcomes, strict=True)
                if isinstance(outcome, bytes)
            ]
        dead, counts = self._rest(chunk, outcomes, len(made))
        offsets: list[int] = []
        if self._alone(chunk.partition):
            kept = (r for r, outcome in zip(records, outcomes, strict=True) if isinstance(outcome, bytes))
            offsets = [record.offset() or 0 for record in kept]
        return Batch(
            chunk.partition,
            chunk.epoch,
            chunk.start,
            chunk.end,
            made,
            plain,
            dead,
            counts,
            sum(sizes) + sum(len(letter.value or b"") for letter in dead),
            offsets,
            chunk.weight,
        )

    def forget_refused(self, partition: Partition, before: int) -> None:
        """Forget the refused records of the partition whose offsets are below ``before``: they are committed,
        as dead letters.
        """
        if refused := self.refused.pop(partition, None):
            left = {offset: error for offset, error in refused.items() if offset >= before}
            if left:
                self.refused[partition] = left

    def unresolved(self) -> int:
        """Return how many variations were looked for and not found since the last call."""
        count, self._transform.unresolved = self._transform.unresolved, 0
        return count

    def _refused_among(self, chunk: Chunk) -> Iterator[tuple[int, str]]:
        """Yield the index of each record of ``chunk`` that the output topic refuses, with the reason."""
        refused = self.refused.get(chunk.partition)
        if refused:
            for index, record in enumerate(chunk.records):
                if (error := refused.get(record.offset() or 0)) is not None:
                    yield index, error

    def _recoded(self, values: Sequence[bytes | None]) -> list[bytes | Drop | Dead]:
        """Return what :meth:`Transform.many` returns, between topics that are not both JSON."""
        texts = values if self.decoder is None else self.decoder.decode(values)
        answers = iter(self._transform.many([text for text in texts if not isinstance(text, Dead)]))
        outcomes = [text if isinstance(text, Dead) else next(answers) for text in texts]
        if self.encoder is None:
            return outcomes
        encode = self.encoder.encode
        return [encode(outcome) if isinstance(outcome, bytes) else outcome for outcome in outcomes]

    def _sized(self, record: Record, outcome: bytes | Drop | Dead) -> bytes | Drop | Dead:
        if not isinstance(outcome, bytes):
            return outcome
        if size(record.key(), outcome, record.headers() or []) <= self._limit() - ENVELOPE:
            return outcome
        return Dead(
            "too_large", f"The enriched event has {len(outcome)} bytes, more than the output topic takes"
        )

    def _whole(self, record: Record, value: bytes) -> dict[str, Any]:
        timestamp = record.timestamp()[1] if self._keep_timestamps else 0
        return {
            "value": value,
            "key": record.key(),
            "headers": record.headers() or [],
            "timestamp": max(timestamp, 0),
        }

    def _rest(
        self, chunk: Chunk, outcomes: list[bytes | Drop | Dead], enriched: int
    ) -> tuple[list[DeadLetter], Counter[tuple[str, str]]]:
        """Return the dead letters among ``outcomes``, and the count of each outcome."""
        dead: list[DeadLetter] = []
        counts: Counter[tuple[str, str]] = Counter({("enriched", ""): enriched})
        if enriched == len(outcomes):
            return dead, counts
        rest = [
            (record, outcome)
            for record, outcome in zip(chunk.records, outcomes, strict=True)
            if outcome.__class__ is not bytes
        ]
        for record, outcome in rest:
            if isinstance(outcome, Drop):
                counts["dropped", outcome.reason] += 1
            elif isinstance(outcome, Dead):
                counts["dead", outcome.reason] += 1
                dead.append(
                    dead_letter(
                        chunk.partition,
                        record,
                        stage="enrich",
                        reason=outcome.reason,
                        error=outcome.error,
                        limit=self._limit(),
                    )
                )
        return dead, counts


def _sizes(outcomes: Sequence[bytes | Drop | Dead]) -> list[int]:
    """Return the sizes of those of ``outcomes`` that are records."""
    try:
        return list(map(len, outcomes))  # type: ignore[arg-type]  # one that is not a record has no length
    except TypeError:
        return [len(outcome) for outcome in outcomes if isinstance(outcome, bytes)]


def _headers_among(records: Sequence[Record]) -> tuple[bool, Collection[int]]:
    """Return whether any of ``records`` has headers, and the indexes of those with unreadable headers."""
    rest = iter(records)
    unreadable = []
    while True:
        try:
            found = [headers for record in rest if (headers := record.headers())]
        except SystemError:
            refused = len(records) - 1 - length_hint(rest)
            forget_headers(records[refused])
            unreadable.append(refused)
        else:
            return bool(found or unreadable), unreadable
