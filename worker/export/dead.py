"""The dead-letter topic as a destination of whole windows that a sink refused."""

from collections.abc import Callable, Sequence

from worker.chunk import Partition, Record
from worker.dead_letters import DeadLetter, dead_letter, fit, size
from worker.errors import SinkRefused
from worker.sinks.protocol import Reject, Transaction
from worker.window import Manifest


class DeadLetterEncoder:
    """Collects a window's records as dead letters, but for those that the sink has accepted."""

    def __init__(self, partition: Partition, stage: str, error: SinkRefused, limit: int) -> None:
        self._partition = partition
        self._stage = stage
        self._error = error
        self._limit = limit
        self._letters: list[DeadLetter] = []
        self.size = 0

    @property
    def memory(self) -> int:
        return self.size

    def add(self, values: Sequence[bytes], records: Sequence[Record]) -> Sequence[Reject]:
        for record in records:
            if (record.offset() or 0) < self._error.accepted:
                continue
            letter = dead_letter(
                self._partition,
                record,
                stage=self._stage,
                reason="refused",
                error=str(self._error),
                limit=self._limit,
            )
            self._letters.append(letter)
            self.size += size(letter.key, letter.value, letter.headers)
        return ()

    def finish(self, manifest: Manifest) -> list[DeadLetter]:
        return self._letters


class DeadLetterSink:
    """Satisfies :class:`worker.sinks.protocol.TransactionalSink`: the window and its offset become visible
    together.
    """

    fingerprint = "dead-letters"

    def __init__(self, topic: str, stage: str, error: SinkRefused, limit: Callable[[], int]) -> None:
        self._topic = topic
        self._stage = stage
        self._error = error
        self._limit = limit

    def begin(self, partition: Partition, start: int) -> DeadLetterEncoder:
        return DeadLetterEncoder(partition, self._stage, self._error, self._limit())

    def deliver_in(self, transaction: Transaction, manifest: Manifest, payload: list[DeadLetter]) -> None:
        for letter in (fit(letter, self._limit()) for letter in payload):  # the limit may have shrunk
            transaction.produce(self._topic, key=letter.key, value=letter.value, headers=letter.headers)
