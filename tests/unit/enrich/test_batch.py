"""What becomes of a chunk: which of its records have headers that can be read, and what a batch weighs."""

from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from flagstream.chunk import Partition
from flagstream.dead_letters import DeadLetter
from flagstream.enrich.batch import Batch, Pipeline, _headers_among

Kind = Literal["none", "good", "bad"]


@dataclass
class Record:
    """A record as confluent-kafka gives it; one with ``bad`` headers refuses them once and must not be asked
    again."""

    kind: Kind
    asked: int = 0

    def headers(self) -> Any:
        self.asked += 1
        if self.kind == "bad":
            assert self.asked == 1, "it would answer with a null pointer"
            raise SystemError("returned a result with an exception set")
        return [("h", b"1")] if self.kind == "good" else None

    def set_headers(self, value: Any) -> None:
        self.kind = "none"

    def offset(self) -> int:
        return 0

    def key(self) -> bytes | None:
        return None

    def value(self) -> bytes | None:
        return None

    def timestamp(self) -> tuple[int, int]:
        return 1, 0


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        (["none", "none"], (False, [])),
        (["none", "good"], (True, [])),
        (["bad"], (True, [0])),
        (["good", "none", "bad", "good", "bad"], (True, [2, 4])),
        (["bad", "bad", "good"], (True, [0, 1])),
    ],
)
def test_headers_that_cannot_be_read_are_found_wherever_they_stand(
    kinds: list[Kind], expected: tuple[bool, list[int]]
) -> None:
    """It is found after others that can be produced, too; and afterwards every record may be asked."""
    records = [Record(kind) for kind in kinds]

    found, unreadable = _headers_among(records)

    assert (found, list(unreadable)) == expected
    for record in records:
        record.headers()


def test_what_is_dropped_or_dead_has_its_weight() -> None:
    """Tombstones have no bytes, but each becomes a letter with headers: the pipeline is full of them, too."""
    letters = [DeadLetter(None, None, [], "tombstone", "t-0@1")] * 5_000
    partition = Partition("t", 0)
    pipeline = Pipeline(6 * 1024**2)
    pipeline.put_nowait(Batch(partition, 1, 0, 5_000, [], True, letters, Counter(), 0))

    assert pipeline.full()
    dropped = Batch(partition, 1, 0, 5_000, [], True, [], Counter(), 0)
    assert dropped.memory > 0
