"""Remembers what was sent, and compares it with the files, event by event. Objects are read back as files."""

import gzip
import json
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from flagstream.demo.samples import Fate, Sample, mark

RECENT = 5_000
"""How many records are kept as they were sent, to be shown beside what became of them."""
_NOT_SENT = 0


@dataclass(slots=True)
class Audit:
    """What the files hold, compared with what was sent. The lists hold sequences."""

    files: int = 0
    events: int = 0
    missing: list[int] = field(default_factory=list)
    twice: list[int] = field(default_factory=list)
    foreign: list[object] = field(default_factory=list)
    """Events that were not sent as they are there, or that should have been dropped."""

    @property
    def clean(self) -> bool:
        """Whether every event in the files was sent so, and every tracked event sent is there once."""
        return not (self.missing or self.twice or self.foreign)


class Ledger:
    """Each record's fate and mark by sequence: five bytes a record, so a demo may run for hours."""

    def __init__(self) -> None:
        self.recent: dict[int, bytes] = {}
        self.sent = 0
        self._fates = bytearray()
        self._marks = array("I")

    @property
    def next(self) -> int:
        """Return the sequence of the next record."""
        return len(self._fates)

    def enter(self, sample: Sample) -> None:
        """Remember the next sample; it counts once :meth:`settle` reports that the topic has it."""
        self.recent.pop(self.next - RECENT, None)
        self.recent[self.next] = sample.value
        self._fates.append(_NOT_SENT)
        self._marks.append(sample.mark)

    def settle(self, sequence: int, fate: Fate) -> None:
        """Called when the topic has the record."""
        self._fates[sequence] = fate
        self.sent += 1

    def count(self, fate: Fate) -> int:
        """Return how many of the records sent have this fate."""
        return self._fates.count(fate)

    def audit(self, files: Iterable[Path]) -> Audit:
        """Read the gzip files and compare each event with the record that was sent under its sequence."""
        audit = Audit()
        seen = bytearray(len(self._fates))
        for path in files:
            audit.files += 1
            with gzip.open(path) as lines:
                for line in lines:
                    audit.events += 1
                    self._check(line, seen, audit)
        audit.missing = [s for s, fate in enumerate(self._fates) if fate == Fate.EXPORT and not seen[s]]
        return audit

    def _check(self, line: bytes, seen: bytearray, audit: Audit) -> None:
        event = json.loads(line)
        sequence = event.get("sequence")
        if not isinstance(sequence, int) or not self._is(sequence, event):
            audit.foreign.append(sequence)
        elif seen[sequence]:
            audit.twice.append(sequence)
        else:
            seen[sequence] = 1

    def _is(self, sequence: int, event: dict[str, object]) -> bool:
        return (
            0 <= sequence < self.next
            and self._fates[sequence] == Fate.EXPORT
            and self._marks[sequence] == mark(event)
        )
