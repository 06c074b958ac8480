"""A window that goes out in parts: what is divided, what becomes a dead letter, and that ids hold."""

import asyncio
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count, pairwise
from typing import Any

import pytest
import structlog

from flagstream.errors import PartRefused, RangesRefused, SinkRefused, SinkRefusesAll, SinkUnavailable
from flagstream.export.parts import FIRST, MOST_WHY, RUN, Course, Refusals
from flagstream.export.sending import send_in_parts
from flagstream.kafka.commit_metadata import LIMIT, Committed, Division, GroupStart, Plan
from flagstream.sinks.webhook.body import Part, Parts, PartsEncoder
from flagstream.testing import PARTITION, StoredRecord, event
from flagstream.window import Manifest, OffsetRange

Accepts = Callable[[list[int]], bool]
"""Whether a receiver takes a request with the events of these offsets."""


def parts_of(end: int, most: int = 8, start: int = 0) -> tuple[Part, ...]:
    """A window of events at the offsets [start, end), in parts of `most`."""
    encoder = PartsEncoder(PARTITION, most, 1 << 20, event_ids=False)
    values = [event(offset) for offset in range(start, end)]
    encoder.add(values, [StoredRecord(start + n, value) for n, value in enumerate(values)])
    payload: Parts = encoder.finish(Manifest(OffsetRange(PARTITION, start, end), end - start, "", ""))
    return tuple(payload.parts)


def without(*bad: int) -> Accepts:
    return lambda offsets: not set(bad) & set(offsets)


class Died(Exception):
    """The worker was killed here."""


@dataclass
class World:
    """A receiver and the plan in Kafka, which outlive the workers that deliver one window.

    `accepts` decides by what a request holds. A refusal counts at once, but for what never counts.
    """

    parts: tuple[Part, ...]
    accepts: Accepts
    gives_up: bool = True
    code: str = "403"
    refusals: Refusals = field(default_factory=Refusals)
    requests: list[str] = field(default_factory=list)
    accepted: dict[int, set[str]] = field(default_factory=lambda: defaultdict(set))
    contents: dict[str, set[bytes]] = field(default_factory=lambda: defaultdict(set))
    division: Division | None = None
    texts: list[str] = field(default_factory=list)
    workers: int = 0
    stuck: SinkRefused | None = None
    die_at: int | None = None
    steps: int = 0

    @property
    def window(self) -> OffsetRange:
        return OffsetRange(PARTITION, self.parts[0].range.start, self.parts[-1].range.end)

    def sends(self, name: str) -> int:
        return self.requests.count(name)

    def step(self) -> None:
        """A place where the worker can die."""
        self.steps += 1
        if self.steps == self.die_at:
            raise Died

    def send(self, manifest: Manifest, part: Part) -> int:
        self.step()
        name = f"{part.range.start}-{part.range.end}"
        self.requests.append(name)
        self.contents[name].add(part.events)
        offsets = [stop - 1 for stop in part.stops]
        taken = self.accepts(offsets)
        if taken:
            for offset in offsets:
                self.accepted[offset].add(name)
        self.step()
        if not taken:
            raise PartRefused(f"answers {self.code}", self.code, denied=self.code == "403")
        return len(part.events)

    async def commit(self, division: Division) -> None:
        self.step()
        text = Committed(Plan(self.window.end, len(self.parts), "d", "c", division=division)).text()
        self.texts.append(text)
        plan = Committed.parse(text).plan
        assert plan is not None
        self.division = plan.division
        self.step()

    async def call_sink(self, function: Callable[[], Any]) -> Any:
        try:
            return function()
        except SinkRefused as error:
            if self.gives_up and not isinstance(error, SinkRefusesAll):
                raise
            self.stuck = error
            raise Died from error

    def deliver(self) -> RangesRefused | None:
        """One worker's try; Died if it was killed, or would go on trying for ever (`stuck`)."""
        course = Course(
            self.window,
            self.parts,
            self.refusals,
            inherited=self.workers > 0,
            division=self.division,
            gives_up=self.gives_up,
        )
        self.workers += 1
        work: Awaitable[object] = send_in_parts(
            self,  # type: ignore[arg-type]  # as far as it is needed
            Manifest(self.window, 0, "", ""),
            course,
            call_sink=self.call_sink,
            commit=self.commit,
            refused=lambda: None,
            log=structlog.get_logger(),
        )

        async def run() -> None:
            await work

        try:
            asyncio.run(run())
        except RangesRefused as refused:
            return refused
        return None


def dead(world: World, refused: RangesRefused | None) -> list[int]:
    """The offsets that become dead letters."""
    if refused is None:
        return []
    return [offset for offset in range(world.window.start, world.window.end) if refused.reason(offset)]


# ── dividing ────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_part_is_the_unit() -> None:
    """Of three parts one holds a bad event: it is halved down to it, and all others are accepted once."""
    world = World(parts_of(24), without(12))

    assert dead(world, world.deliver()) == [12]
    assert world.requests == [
        *("0-8", "8-16", "8-12", "12-16", "12-14", "12-13", "13-14", "14-16", "16-24"),
    ]
    assert sorted(world.accepted) == [offset for offset in range(24) if offset != 12]
    assert {len(names) for names in world.accepted.values()} == {1}


def test_a_too_large_part_is_halved_until_it_fits() -> None:
    """Nothing becomes a dead letter, whatever the policy."""
    for gives_up in (True, False):
        world = World(parts_of(20, 10), lambda offsets: len(offsets) <= 3, gives_up, code="413")

        assert world.deliver() is None
        assert sorted(world.accepted) == list(range(20))
        assert {len(names) for names in world.accepted.values()} == {1}


def test_without_dead_letters_it_waits_at_the_bad_event() -> None:
    """What comes before it is accepted, what comes after it waits; the problem names the event."""
    world = World(parts_of(24), without(12), gives_up=False)

    with pytest.raises(Died):
        world.deliver()

    assert sorted(world.accepted) == list(range(12))
    assert "evaluations-3-12-13" in str(world.stuck)


def test_cuts_are_committed_before_the_first_half_is_sent() -> None:
    """Killed right after the refusal was answered, nothing goes out under other ids than the plan's."""
    world = World(parts_of(8), without(5))
    world.die_at = 3  # sent, answered, about to commit

    with pytest.raises(Died):
        world.deliver()

    assert world.requests == ["0-8"]
    assert world.division is None


@pytest.mark.parametrize("answered", [True, False])
def test_never_after_an_unanswered_try(answered: bool) -> None:
    """The whole may have been accepted under its id: its halves would come again under others."""
    course = Course(
        OffsetRange(PARTITION, 0, 8), parts_of(8), Refusals(), inherited=False, division=None, gives_up=True
    )
    if not answered:
        course.doubt()

    judged = course.judge(PartRefused("answers 413", "413"))

    assert (judged is None) == answered
    if judged is not None:
        assert "not divided" in str(judged)
        assert judged.denied, "it counts only after refused_after"


def test_never_at_the_takeover_of_an_undivided_plan() -> None:
    """Whoever made the plan may have sent each of its parts: all keep their ids, the later ones as well."""
    world = World(parts_of(24), without(3, 12), workers=1)

    assert dead(world, world.deliver()) == [*range(16)]
    assert world.requests == ["0-8", "8-16", "16-24"]


def test_a_divided_plan_is_gone_on_with() -> None:
    """What was accepted is not sent again; what was not sent yet may be divided further."""
    world = World(parts_of(24), without(12), workers=1)
    world.division = Division(at=8, cuts=(12,), why="403")

    assert dead(world, world.deliver()) == [12]
    assert world.requests == ["8-12", "12-16", "12-14", "12-13", "13-14", "14-16", "16-24"]


def test_a_divided_plan_that_meets_another_refusal_is_not_divided_further() -> None:
    """Its first part may have been accepted before the sink changed its mind; the parts after it were not
    sent.
    """
    world = World(parts_of(24), lambda offsets: max(offsets) < 8 or len(offsets) < 4, workers=1, code="400")
    world.division = Division(at=8, cuts=(12,), why="413")

    assert dead(world, world.deliver()) == [8, 9, 10, 11]
    assert world.requests[:3] == ["8-12", "12-16", "12-14"]


# ── the event, or the receiver ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("code", ["400", "403", "413", "422"])
def test_if_the_first_eight_single_events_are_refused_it_is_the_receiver(code: str) -> None:
    """Nothing becomes a dead letter, and as soon as it takes events again all of them arrive."""
    world = World(parts_of(2_000, 2_000), lambda offsets: False, code=code)

    with pytest.raises(Died):
        world.deliver()
    alone = {name for name in world.requests if world.contents[name] == {event(int(name.split("-")[0]))}}
    assert isinstance(world.stuck, SinkRefusesAll)
    assert len(alone) == FIRST

    world.accepts = lambda offsets: True
    assert world.deliver() is None
    assert sorted(world.accepted) == list(range(2_000))
    assert {len(names) for names in world.accepted.values()} == {1}


def test_a_receiver_that_takes_other_partitions_is_not_at_fault_for_ever() -> None:
    """Nine bad events at the front of a window make it the receiver. While it accepts what other partitions
    send, the refusals count after `refused_after`; the good events after them arrive then.
    """
    world = World(parts_of(16, 16), without(*range(9)))
    seen: list[type[SinkRefused]] = []

    async def call_sink(function: Callable[[], Any]) -> Any:
        while True:
            try:
                return function()
            except SinkRefused as error:
                seen.append(type(error))
                if error.denied:
                    raise
                world.refusals.taken += len(seen) == 3  # another partition

    world.call_sink = call_sink  # type: ignore[method-assign]
    assert dead(world, world.deliver()) == list(range(9))
    assert seen == [SinkRefusesAll] * 3 + [SinkRefused]
    assert sorted(world.accepted) == list(range(9, 16))


def test_small_windows_are_counted_together() -> None:
    """A receiver that refuses all of a quiet topic, an event a window, gets to eight as well."""
    refusals = Refusals()
    letters = 0
    for offset in range(FIRST):
        world = World(
            parts_of(offset + 1, start=offset), lambda offsets: False, code="422", refusals=refusals
        )
        try:
            letters += len(dead(world, world.deliver()))
        except Died:
            assert isinstance(world.stuck, SinkRefusesAll)
    assert letters == FIRST - 1
    assert world.stuck is not None


def test_what_is_accepted_between_ends_the_count() -> None:
    """An event that is refused once in a while never makes it the receiver."""
    refusals = Refusals()
    for offset in range(0, 100, 2):
        world = World(parts_of(offset + 2, start=offset), without(offset), code="422", refusals=refusals)
        assert dead(world, world.deliver()) == [offset]


@pytest.mark.parametrize("burst", [FIRST, 20, RUN - 1])
def test_a_burst_of_bad_events(burst: int) -> None:
    """The receiver took others before and after: the burst becomes dead letters, at once."""
    bad = range(100, 100 + burst)
    world = World(parts_of(400, 400), without(*bad))
    counted: list[SinkRefused] = []

    async def call_sink(function: Callable[[], Any]) -> Any:
        try:
            return function()
        except SinkRefused as error:
            counted.append(error)
            raise

    world.call_sink = call_sink  # type: ignore[method-assign]
    assert dead(world, world.deliver()) == list(bad)
    assert counted == [], "nothing had to wait for refused_after"


def test_a_receiver_that_refuses_from_the_middle_of_a_window_on() -> None:
    """Rights that are taken away in mid-window count only after `refused_after`, as any."""
    world = World(parts_of(24), lambda offsets: max(offsets) < 10)
    judged: list[SinkRefused] = []

    async def call_sink(function: Callable[[], Any]) -> Any:
        try:
            return function()
        except SinkRefused as error:
            judged.append(error)
            raise Died from error

    world.call_sink = call_sink  # type: ignore[method-assign]
    with pytest.raises(Died):
        world.deliver()

    assert [(error.denied, type(error)) for error in judged] == [(True, SinkRefused)]
    world.accepts = lambda offsets: True
    del world.call_sink
    assert world.deliver() is None
    assert sorted(world.accepted) == list(range(24))
    assert {len(names) for names in world.accepted.values()} == {1}


def test_rights_that_are_missing_for_a_lone_event_count_later() -> None:
    """403 to the only event of a window may be about rights: it counts after `refused_after`; 422 at once."""
    for code, waits in (("403", True), ("422", False)):
        course = Course(
            OffsetRange(PARTITION, 0, 1),
            parts_of(1),
            Refusals(),
            inherited=False,
            division=None,
            gives_up=True,
        )
        error = PartRefused(f"answers {code}", code, denied=code == "403")
        assert course.judge(error) is None
        course.refuse(error)
        assert (course.next is not None) == waits
        if waits:
            judged = course.judge(error)
            assert judged is not None
            assert judged.denied


# ── death at every step ─────────────────────────────────────────────────────────────────────────────────────


def run_through(world: World) -> list[int]:
    """Workers take over from each other until the window is through; the offsets that became dead letters."""
    while True:
        try:
            return dead(world, world.deliver())
        except Died:
            assert world.stuck is None, world.stuck
            world.refusals = Refusals()
            world.die_at = None


@pytest.mark.parametrize("bad", [(), (0,), (5,), (7, 8), (23,), (8, 9, 10, 11), (0, 12, 23)])
def test_a_death_at_any_step_loses_nothing_and_ids_hold(bad: tuple[int, ...]) -> None:
    """At each step of the protocol in turn: every event is accepted or a dead letter, none is accepted under
    two ids, and an id stands for the same events on every try.
    """
    for step in count(1):
        world = World(parts_of(24), without(*bad), die_at=step)
        letters = run_through(world)
        assert set(world.accepted) | set(letters) == set(range(24)), step
        assert all(len(names) == 1 for names in world.accepted.values()), (step, world.requests)
        assert all(len(contents) == 1 for contents in world.contents.values()), (step, world.requests)
        assert set(bad) <= set(letters), step
        if world.division is not None and world.division.why:  # once divided, only what is bad is given up
            assert set(letters) == set(bad), (step, world.requests)
        if world.workers == 1:
            assert step > 5
            break


def test_a_death_at_any_step_of_dividing_by_size() -> None:
    """The same for a receiver that takes little, without dead letters: once divided, it gets through."""
    for step in count(4):  # before, the plan is undivided
        world = World(parts_of(20, 10), lambda offsets: len(offsets) <= 2, False, code="413", die_at=step)
        assert run_through(world) == []
        assert sorted(world.accepted) == list(range(20))
        assert all(len(names) == 1 for names in world.accepted.values()), (step, world.requests)
        if world.workers == 1:
            break


def few_and_none_bad(size: int, bad: set[int], offsets: Sequence[int]) -> bool:
    """Whether a request holds at most ``size`` events and none of the ``bad`` ones."""
    return len(offsets) <= size and not bad & set(offsets)


def test_deaths_at_random_steps_lose_nothing_and_ids_hold() -> None:
    """Several deaths of a window, at steps, with bad events and in parts that a seed chooses."""
    for seed in range(150):
        chance = random.Random(seed)
        most, end = chance.choice([1, 3, 8, 24, 40]), chance.choice([7, 24, 40])
        bad = chance.sample(range(end), chance.choice([0, 1, 2, 5, end // 2]))
        size = chance.choice([1, 2, 5, end])
        accepts = partial(few_and_none_bad, size, set(bad))
        world = World(parts_of(end, most), accepts, code=chance.choice(["403", "413", "422"]))
        letters: list[int] = []
        for _ in range(chance.choice([1, 2, 4])):
            world.die_at = world.steps + chance.randint(1, 25)
            try:
                letters = dead(world, world.deliver())
                break
            except Died:
                if world.stuck is not None:
                    break
        else:
            world.die_at = None
            with suppress(Died):
                letters = dead(world, world.deliver())
        about = (seed, world.requests, letters)
        assert all(len(names) == 1 for names in world.accepted.values()), about
        assert all(len(contents) == 1 for contents in world.contents.values()), about
        if world.stuck is None:
            assert set(world.accepted) | set(letters) == set(range(end)), about
            assert set(bad) <= set(letters), about
        else:  # nothing was accepted beside the first eight: it is the receiver
            assert isinstance(world.stuck, SinkRefusesAll), about
            assert letters == [], about


# ── the plan ────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_plan_names_only_the_cuts_that_lie_ahead() -> None:
    """So it stays short: what is settled is one offset and the refused ranges."""
    world = World(parts_of(10_000, 10_000), without(*range(5, 10_000, 100)))

    assert dead(world, world.deliver()) == list(range(5, 10_000, 100))
    assert max(map(len, world.texts)) < 600
    assert all('"v":2' in text for text in world.texts)


def test_a_window_with_more_refusals_than_a_plan_holds_ends_early() -> None:
    """What is settled becomes dead letters; the rest, which was never accepted, is planned again."""
    world = World(parts_of(10_000, 10_000), lambda offsets: all(offset % 2 for offset in offsets))

    refused = world.deliver()

    assert refused is not None
    assert refused.until is not None
    assert dead(world, refused) == list(range(0, refused.until, 2))
    assert sorted(world.accepted) == list(range(1, refused.until, 2))
    assert max(map(len, world.texts)) < LIMIT


def test_the_largest_division_fits_into_kafkas_metadata() -> None:
    """4,095 characters at most, with everything else that can stand there, at their largest."""
    far = 10**15
    refused: list[tuple[int, int]] = []
    while not Division(far, (), tuple(refused), "").full:
        start = refused[-1][1] + far if refused else far
        refused.append((start, start + 1))
    at = refused[-1][1]
    cuts = tuple(at + far * (number + 1) for number in range(RUN + 27))
    plan = Plan(
        2**63 - 1,
        10**8,
        "f" * 64,
        "f" * 64,
        tuple(range(2**31 - 101, 2**31 - 1)),
        Division(at, cuts, tuple(refused), "w" * MOST_WHY),
    )
    text = Committed(plan, 2**62, "t" * 22, GroupStart(2**42, 2**20)).text()
    assert len(text) <= LIMIT
    assert Committed.parse(text).plan == plan


def test_halves_tile_the_part() -> None:
    """Every event is in one half, in its bytes, and gaps in the offsets belong to one of them."""
    offsets = [3, 10, 12, 19, 30]
    encoder = PartsEncoder(PARTITION, 100, 1 << 20, event_ids=False)
    encoder.add([event(offset) for offset in offsets], [StoredRecord(at, event(at)) for at in offsets])
    (whole,) = encoder.finish(Manifest(OffsetRange(PARTITION, 0, 40), 5, "", "")).parts
    pieces: list[Part] = [whole]
    while any(piece.count > 1 for piece in pieces):
        pieces = [half for piece in pieces for half in piece.split(piece.middle if piece.count > 1 else 0)]

    assert [piece.events for piece in pieces] == [event(offset) for offset in offsets]
    assert [(piece.range.start, piece.range.end) for piece in pieces] == list(
        pairwise([0, 4, 11, 13, 20, 40])
    )
    assert whole.split(3) == (whole,)
    assert whole.split(40) == (whole,)


def test_other_failures_are_doubtful_unless_nothing_was_sent() -> None:
    """Only a failure that says so leaves it certain that the part was not taken."""
    assert SinkUnavailable("no answer").unanswered
    assert not SinkUnavailable("left alone", unanswered=False).unanswered
