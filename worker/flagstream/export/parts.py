"""How far a window is that goes out in parts, and what becomes of a part that the sink refuses.

Parts are sent in order. One that is refused for what it holds (:class:`~flagstream.errors.PartRefused`) is
halved, down to the event, and a single event that is still refused becomes a dead letter where the sink is
configured so. Three rules keep an event from being accepted under two ids:

* how a part is cut is committed before the first half is sent
  (:class:`~flagstream.kafka.commit_metadata.Division`);
* a part that may have been accepted unseen is not divided: one whose try was not answered, and every part of
  an undivided plan that somebody else made;
* in a divided window each request comes after a commit of what was settled before it. So whoever takes the
  window over sends nothing again that was accepted, and of the parts with several events only the first may
  have been sent already. That one is divided only for the refusal that the window was divided for: the sink
  was of the same mind before and after.

Whether an event is bad or the sink refuses everything is decided before anything becomes a dead letter:

* The first :data:`FIRST` single events are all refused, and nothing else is accepted: it is the sink. It is
  tried again for as long as it takes. Only where it accepts events of other partitions all the while, the
  refusals count after ``refused_after``.
* An accepted part settles the refusals before it: those events were bad.
* Refusals that nothing accepted follows count at once if they are few and the sink took others of the window.
  Else they count after ``refused_after``, as missing rights do.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import takewhile

from flagstream.errors import PartRefused, RangesRefused, SinkRefused, SinkRefusesAll
from flagstream.kafka.commit_metadata import Division
from flagstream.sinks.protocol import Delivery, Part
from flagstream.window import OffsetRange

FIRST = SinkRefusesAll.AFTER
RUN = 64
"""Single events in a row that are refused in a window of which others were accepted, until it may be the
sink: each costs a request, and all that are not settled stand in the plan.
"""
MOST_WHY = 16
"""Characters of a sink's word for a refusal that the plan keeps."""


class Refusals:
    """What the partitions of one sink know together. ``in_a_row``: how many single events it has refused,
    which became dead letters, since it took anything; ``taken``: how many parts it took; ``divided``: whether
    it ever refused a part that had to be divided.
    """

    def __init__(self) -> None:
        self.in_a_row = 0
        self.taken = 0
        self.divided = False


class _Mind(Enum):
    """What the refusal of a single event means."""

    EVENT = "the event is bad"
    UNSURE = "it counts after refused_after"
    SINK = "the sink refuses everything"
    SURE = "the event is bad, however many follow"


@dataclass(slots=True)
class _Judgement:
    """What the engine makes of refusals that nothing accepted has settled yet: ``run``, single events in a
    row. ``taken_before``: how many parts the sink had taken when it seemed to refuse everything.
    """

    mind: _Mind = _Mind.EVENT
    taken_before: int = 0
    run: list[tuple[Part, PartRefused]] = field(default_factory=list)


class Course:
    """The parts of one window, in the order in which they are sent. No I/O.

    ``division``: as found in the plan that is repeated; ``inherited``: there is such a plan, and somebody
    else may have sent parts of it. ``gives_up``: single events that are refused become dead letters.
    """

    def __init__(
        self,
        window: OffsetRange,
        parts: Sequence[Part],
        refusals: Refusals,
        *,
        inherited: bool,
        division: Division | None,
        gives_up: bool,
    ) -> None:
        self.delivery = Delivery(0, 0, 0)
        """The parts that were accepted, and their bytes."""
        self._refusals = refusals
        self._gives_up = gives_up
        # Nothing was divided: whoever made the plan may have sent any part of it.
        self._doubtful_whole = inherited and (division is None or not division.why)
        self._doubtful = self._doubtful_whole
        self._others_why = division.why if division is not None and inherited else ""
        self._left = deque(parts)
        self._own = {part.range.end for part in parts}
        self._cut_until = 0
        self._refused: list[tuple[int, int, str]] = []
        self._judgement = _Judgement()
        self._taken = False
        self._why = ""
        self._divided = division is not None
        self._committed = division
        if division is not None:
            self._resume(window, division)

    def _resume(self, window: OffsetRange, division: Division) -> None:
        for at in (division.at, *division.cuts):
            self._left = deque(piece for part in self._left for piece in part.split(at))
        while self._left and self._left[0].range.end <= division.at:
            self._left.popleft()
        self._cut_until = max(division.cuts, default=0) + 1
        known = f"refused before this worker took the window over ({division.why or 'credentials or rights'})"
        self._refused = [(start, end, known) for start, end in division.refused]
        refused = sum(end - start for start, end in division.refused)
        self._taken = division.at - window.start > refused
        self._why = division.why

    @property
    def next(self) -> Part | None:
        """The part to send; None when the window has been gone through."""
        return self._left[0] if self._left else None

    @property
    def last(self) -> bool:
        """Whether nothing comes after the next part."""
        return len(self._left) == 1

    @property
    def division(self) -> Division:
        """What has to be committed before the next part is sent."""
        cut = takewhile(lambda part: part.range.start < self._cut_until, self._left)
        parts = [*(part for part, _ in self._judgement.run), *cut]
        at = parts[0].range.start if parts else self._left[0].range.start
        cuts = tuple(part.range.end for part in parts if part.range.end not in self._own)
        return Division(at, cuts, tuple((start, end) for start, end, _ in self._refused), self._why)

    @property
    def uncommitted(self) -> bool:
        """Whether the plan does not say yet what has to be known before the next part is sent."""
        if not self._divided or (division := self.division) == self._committed:
            return False
        # Where every part is sent again anyway, under the same id, the plan may be older.
        return not (self._doubtful_whole and division.full)

    def committed(self, division: Division) -> None:
        """The division is committed as it is now."""
        self._committed = division

    def doubt(self) -> None:
        """The next part may have been accepted, unseen."""
        self._doubtful = True

    def judge(self, error: PartRefused) -> SinkRefused | None:
        """What the engine is to make of it that the next part was refused; None: it is for :meth:`refuse`."""
        part = self._left[0]
        if part.count > 1:
            if self._divisible(error):
                return None
            return SinkRefused(
                f"{error}; {part.range} may have been accepted unseen before, so it is not divided: have the "
                "receiver take it once",
                denied=True,
            )
        alone = f"{error}; what was sent is one event alone, {part.range}"
        if not self._gives_up:
            only = "" if self._taken else "If it takes others, "
            way_out = 'have the receiver take it, or set on_refused = "dead_letter"'
            return SinkRefused(f"{alone}. {only}{way_out}")
        if self._judgement.mind is _Mind.SINK and self._refusals.taken > self._judgement.taken_before:
            self._judgement.mind = _Mind.UNSURE  # other partitions are accepted all the while
        match self._judgement.mind:
            case _Mind.SINK:
                return SinkRefusesAll(
                    f"{alone}, and others alone are refused too: nothing becomes a dead letter"
                )
            case _Mind.UNSURE:
                return SinkRefused(alone, denied=True)
        return None

    def accept(self, sent: int) -> None:
        """The next part was accepted; ``sent`` bytes of it."""
        self.delivery = Delivery(self.delivery.created + 1, 0, self.delivery.bytes + sent)
        self._taken = True
        self._refusals.in_a_row = 0
        self._refusals.taken += 1
        self._settle()
        if self._judgement.mind is not _Mind.SURE:
            self._judgement.mind = _Mind.EVENT
        self._go_on()

    def refuse(self, error: PartRefused) -> bool:
        """The next part was refused for what it holds: divide it, or count it as a bad event. True if it was
        divided.
        """
        part = self._left[0]
        if part.count > 1:
            self._left.popleft()
            self._left.extendleft(reversed(part.split(part.middle)))
            self._cut_until = max(self._cut_until, part.range.end)
            self._refusals.divided = True
            self._divided, self._why, self._others_why = True, error.code[:MOST_WHY], ""
            return True
        self._judgement.run.append((part, error))
        self._go_on()
        self._make_up_mind()
        return False

    def give_up(self, error: SinkRefused) -> None:
        """The next part was refused for long enough: its events become dead letters."""
        part = self._left[0]
        self._settle()
        self._refused.append((part.range.start, part.range.end, str(error)))
        self._divided = True  # from here on a plan says what is not to be sent again
        if self._judgement.mind is _Mind.UNSURE:
            self._judgement.mind = _Mind.SURE
        self._go_on()

    def outcome(self) -> RangesRefused | None:
        """What was refused of the window, once it has been gone through, or as soon as a plan cannot hold
        more of it; else None.
        """
        if not self._refused:
            return None
        until = None
        if self._left:
            division = self.division
            if self._doubtful_whole or not division.full:
                return None
            until = division.at
        texts = list(dict.fromkeys(text for _, _, text in self._refused))
        more = f" (and {len(texts) - 1} other answers)" if len(texts) > 1 else ""
        return RangesRefused(f"{texts[0]}{more}", self._refused, until)

    def _divisible(self, error: PartRefused) -> bool:
        if self._others_why and error.code[:MOST_WHY] != self._others_why:
            return False
        return not self._doubtful

    def _go_on(self) -> None:
        if self._left.popleft().count > 1:
            self._others_why = ""
        self._doubtful = self._doubtful_whole

    def _settle(self) -> None:
        self._refused += [
            (part.range.start, part.range.end, str(error)) for part, error in self._judgement.run
        ]
        if not self._taken:
            self._refusals.in_a_row += len(self._judgement.run)
        self._judgement.run.clear()

    def _make_up_mind(self) -> None:
        if self._judgement.mind is _Mind.SURE:
            self._settle()
            return
        run = len(self._judgement.run)
        if not self._taken and self._refusals.in_a_row + run >= FIRST:
            self._judgement.mind = _Mind.SINK
            self._judgement.taken_before = self._refusals.taken
        elif run >= RUN or (not self._left and self._suspicious):
            self._judgement.mind = _Mind.UNSURE
        elif not self._left:
            self._settle()
            return
        else:
            return
        self._left.extendleft(part for part, _ in reversed(self._judgement.run))
        self._judgement.run.clear()

    @property
    def _suspicious(self) -> bool:
        """Whether the refusals at the end of the window may be due to the sink."""
        if self._taken:
            return len(self._judgement.run) >= FIRST
        return any(error.denied for _, error in self._judgement.run)
