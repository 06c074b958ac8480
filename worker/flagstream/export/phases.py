"""The phases of a partition's export, as data: what each one does, and which event leads to which phase.

:class:`Phases` holds the phase of one export and consults the table at every event. An event that the table
does not have for the phase is a fault of the worker: it raises UnknownTransition, and the process ends. The
table is in docs/how-it-works.md too; a test compares the two.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

import structlog

from flagstream.chunk import Partition
from flagstream.errors import FlagstreamError

log = structlog.get_logger(__name__)


class Phase(Enum):
    """What the export of a partition does at a time."""

    TAKING_OVER = "finds out where the last owner left off"
    EXPORTING = "cuts windows and delivers them"
    CATCHING_UP = "delivers what it holds of the records before a hole"
    STOPPING = "delivers the windows that were closed before a record that it cannot export"
    STOPPED = "waits for a person, and looks again from time to time"
    ENDING = "delivers what fits before the partition is given away"
    ENDED = "does nothing more"


class Event(Enum):
    """What can happen to the export of a partition."""

    TAKEN_OVER = "taken over"
    NOT_TAKEN_OVER = "cannot be taken over"
    OFFSETS_LOST = "offsets lost or deleted, configured to continue"
    HOLE = "hole"
    BEFORE_HOLE_COMMITTED = "all before the hole committed, configured to continue"
    STOPPED_AT_HOLE = "all before the hole committed, configured to stop"
    BAD_RECORD = "bad record"
    QUEUE_EMPTY = "queue empty"
    CANNOT_DELIVER = "conflict, plan mismatch, other topic"
    REFUSED = "refused, becomes dead letters"
    ENCODE_AGAIN = "transaction uncertain, or the topic takes less"
    NOT_JOINED = "chunk does not join"
    LOOK_AGAIN = "look again is due"
    GIVEN_AWAY = "revoke, shutdown"
    FINISHED = "queue empty or deadline"
    LOST = "lost"
    UNFORESEEN = "unforeseen error"


@dataclass(frozen=True, slots=True)
class Duties:
    """What the export does in a phase: take new chunks, cut windows, deliver closed windows."""

    takes: bool
    cuts: bool
    delivers: bool


DUTIES: Mapping[Phase, Duties] = {
    Phase.TAKING_OVER: Duties(takes=True, cuts=False, delivers=False),
    Phase.EXPORTING: Duties(takes=True, cuts=True, delivers=True),
    Phase.CATCHING_UP: Duties(takes=True, cuts=True, delivers=True),
    Phase.STOPPING: Duties(takes=False, cuts=False, delivers=True),
    Phase.STOPPED: Duties(takes=False, cuts=False, delivers=False),
    Phase.ENDING: Duties(takes=False, cuts=True, delivers=True),
    Phase.ENDED: Duties(takes=False, cuts=False, delivers=False),
}

FROM_ALL: Mapping[Event, Phase] = {
    Event.GIVEN_AWAY: Phase.ENDING,
    Event.LOST: Phase.ENDED,
    Event.NOT_JOINED: Phase.ENDED,
    Event.UNFORESEEN: Phase.ENDED,
}
"""From every phase but ENDED."""
_WHILE_DELIVERING: Mapping[Event, Phase] = {
    Event.CANNOT_DELIVER: Phase.STOPPED,
    Event.REFUSED: Phase.ENDED,
    Event.ENCODE_AGAIN: Phase.ENDED,
}

TABLE: Mapping[Phase, Mapping[Event, Phase]] = {
    Phase.TAKING_OVER: {
        Event.TAKEN_OVER: Phase.EXPORTING,
        Event.NOT_TAKEN_OVER: Phase.STOPPED,
        Event.OFFSETS_LOST: Phase.ENDED,
        **FROM_ALL,
    },
    Phase.EXPORTING: {
        Event.HOLE: Phase.CATCHING_UP,
        Event.BAD_RECORD: Phase.STOPPING,
        **_WHILE_DELIVERING,
        **FROM_ALL,
    },
    Phase.CATCHING_UP: {
        Event.BEFORE_HOLE_COMMITTED: Phase.ENDED,
        Event.STOPPED_AT_HOLE: Phase.STOPPED,
        Event.BAD_RECORD: Phase.STOPPING,
        **_WHILE_DELIVERING,
        **FROM_ALL,
    },
    Phase.STOPPING: {Event.QUEUE_EMPTY: Phase.STOPPED, **_WHILE_DELIVERING, **FROM_ALL},
    Phase.STOPPED: {Event.LOOK_AGAIN: Phase.ENDED, **FROM_ALL},
    Phase.ENDING: {
        Event.FINISHED: Phase.ENDED,
        **_WHILE_DELIVERING,
        Event.BAD_RECORD: Phase.ENDING,
        Event.CANNOT_DELIVER: Phase.ENDED,
        **FROM_ALL,
    },
    Phase.ENDED: {},
}

TRANSITIONS: Counter[tuple[Phase, Event, Phase]] = Counter()
"""How often each transition has happened in this process."""


class UnknownTransition(FlagstreamError):
    """An event came in a phase for which the table does not have it. It ends the process."""


class Phases:
    """The phase of one partition's export."""

    def __init__(self, sink: str, partition: Partition) -> None:
        self.phase = Phase.TAKING_OVER
        self._log = log.bind(sink=sink, partition=str(partition))

    @property
    def duties(self) -> Duties:
        """What the export does now."""
        return DUTIES[self.phase]

    @property
    def ended(self) -> bool:
        """Whether nothing more happens."""
        return self.phase is Phase.ENDED

    def enter(self, event: Event) -> Phase:
        """Go to the phase to which ``event`` leads, and return it. Raises UnknownTransition."""
        before = self.phase
        after = TABLE[before].get(event)
        if after is None:
            raise UnknownTransition(f"{event.name} in the phase {before.name}")
        TRANSITIONS[before, event, after] += 1
        self._log.debug("export_phase", before=before.name, reason=event.name, after=after.name)
        self.phase = after
        return after
