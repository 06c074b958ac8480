"""The dead-letter topic as a destination of whole windows that a sink refused."""

from collections.abc import Callable, Sequence
from typing import Any

from flagstream.chunk import Partition, Record
from flagstream.dead_letters import DeadLetter, dead_letter, fit, size
from flagstream.errors import SinkRefused
from flagstream.outcomes import Reject
from flagstream.sinks.protocol import Transaction, WindowEncoder
from flagstream.window import Manifest


class DeadLetterEncoder:
    """Collects a window's records as dead letters, but for those that the sink has accepted.

    ``sinks`` is the encoder of the sink that refused: what it rejects was not in what the sink accepted, nor
    in what it refused, and is rejected again.
    """

    def __init__(
        self,
        sinks: WindowEncoder[Any],
        partition: Partition,
        stage: str,
        error: SinkRefused,
        limit: int,
    ) -> None:
        self._sinks: WindowEncoder[Any] | None = sinks
        self._partition = partition
        self._stage = stage
        self._error = error
        self._limit = limit
        self._letters: list[DeadLetter] = []
        self.size = 0

    @property
    def memory(self) -> int:
        return self.size + (self._sinks.memory if self._sinks is not None else 0)

    def add(self, values: Sequence[bytes], records: Sequence[Record]) -> Sequence[Reject]:
        assert self._sinks is not None  # nothing comes after finish()
        rejects = self._sinks.add(values, records)
        rejected = {reject.index for reject in rejects}
        for index, record in enumerate(records):
            why = self._error.reason(record.offset() or 0)
            if index in rejected or why is None:
                continue
            letter = dead_letter(
                self._partition,
                record,
                stage=self._stage,
                reason="refused",
                error=why,
                limit=self._limit,
            )
            self._letters.append(letter)
            self.size += size(letter.key, letter.value, letter.headers)
        return rejects

    def finish(self, manifest: Manifest) -> list[DeadLetter]:
        self._sinks = None
        return self._letters


class DeadLetterSink:
    """Satisfies :class:`flagstream.sinks.protocol.TransactionalSink`: the window and its offset become
    visible together. ``begin`` is that of the sink that refused.
    """

    fingerprint = "dead-letters"

    def __init__(
        self,
        begin: Callable[[Partition, int], WindowEncoder[Any]],
        topic: str,
        stage: str,
        error: SinkRefused,
        limit: Callable[[], int],
    ) -> None:
        self._begin = begin
        self._topic = topic
        self._stage = stage
        self._error = error
        self._limit = limit

    def begin(self, partition: Partition, start: int) -> DeadLetterEncoder:
        return DeadLetterEncoder(
            self._begin(partition, start), partition, self._stage, self._error, self._limit()
        )

    def deliver_in(self, transaction: Transaction, manifest: Manifest, payload: list[DeadLetter]) -> None:
        for letter in (fit(letter, self._limit()) for letter in payload):  # the limit may have shrunk
            transaction.produce(self._topic, key=letter.key, value=letter.value, headers=letter.headers)
