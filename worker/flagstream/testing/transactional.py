"""The contract of a sink whose records are committed together with the offsets."""

import sys
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from flagstream.chunk import Headers
from flagstream.errors import TransactionAborted
from flagstream.testing.contract import Contract
from flagstream.testing.windows import Window, event, events, fill


@dataclass(frozen=True, slots=True)
class Produced:
    """Holds a record that a sink produced."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers


@dataclass(frozen=True, slots=True)
class RecordedTransaction:
    """A transaction that keeps what was produced. After ``room`` records it raises TransactionAborted."""

    room: int = sys.maxsize
    produced: list[Produced] = field(default_factory=list)

    def produce(self, topic: str, *, key: bytes | None, value: bytes | None, headers: Headers) -> None:
        if len(self.produced) >= self.room:
            raise TransactionAborted("no room")
        self.produced.append(Produced(topic, key, value, headers))


class TransactionalSinkContract(Contract):
    """What a sink promises whose records are committed together with the offsets."""

    @abstractmethod
    def read_back(self, produced: Sequence[Produced]) -> list[bytes]:
        """Return the exported records that ``produced`` stands for."""

    def delivered(self, window: Window) -> list[Produced]:
        transaction = RecordedTransaction()
        self.make_sink().deliver_in(transaction, window.manifest, window.payload)
        return transaction.produced

    def test_produces_the_window(self) -> None:
        """Every exported record is produced, in order, and nothing else."""
        window = fill(self.make_sink(), [event(0), *self.unacceptable, event(1)])
        assert window.exported == [event(0), event(1)]
        assert window.exported == self.read_back(self.delivered(window))

    def test_again_is_the_same(self) -> None:
        """After an abort the same window, in other chunks, produces the same records."""
        values = events(50)
        once, again = fill(self.make_sink(), values), fill(self.make_sink(), values, cuts=[1, 40])
        assert self.delivered(once) == self.delivered(again)

    def test_payload_can_be_delivered_twice(self) -> None:
        """A payload is not used up: the engine repeats a delivery whose transaction was aborted."""
        window = fill(self.make_sink(), events(5))
        assert self.delivered(window) == self.delivered(window)

    def test_abort_is_not_hidden(self) -> None:
        """An error of the transaction leaves ``deliver_in`` as it is."""
        window = fill(self.make_sink(), events(5))
        with pytest.raises(TransactionAborted):
            self.make_sink().deliver_in(RecordedTransaction(room=2), window.manifest, window.payload)
