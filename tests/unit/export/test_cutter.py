"""Records in, windows out: where a partition is cut, without Kafka, a sink or a clock."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from flagstream.errors import PartitionStopped, RecordsMissing, SinkRefused
from flagstream.export.cutter import Cutter
from flagstream.export.routes import DeadLetterRoute, PlannedRoute
from flagstream.export.takeover import FixedEnd, Takeover
from flagstream.export.windows import ClosedWindow, Limits
from flagstream.kafka.commit_metadata import Plan
from flagstream.memory import Account, MemoryShare, Weight
from flagstream.sinks.settings import SinkSettings
from flagstream.window import OffsetRange
from tests.support.recording import PARTITION, RecordingKafka, RecordingSink, chunk

MIB = 1024**2
FLUSH_SECONDS = 60.0


def cutter(
    *ends: FixedEnd,
    position: int = 0,
    range_start: int | None = None,
    max_events: int = 3,
    held: Sequence[tuple[int, int]] = (),
    refused: SinkRefused | None = None,
    **settings: Any,
) -> Cutter:
    chosen = SinkSettings(type="test", flush_interval=FLUSH_SECONDS, **settings)
    kafka, sink = RecordingKafka([]), RecordingSink([])
    return Cutter(
        "test",
        PARTITION,
        position,
        Takeover(position if range_start is None else range_start, list(ends)),
        route=PlannedRoute("test", sink, chosen, kafka, kafka),
        refused=None
        if refused is None
        else DeadLetterRoute("test", sink.begin, kafka, refused, "dead", lambda: MIB),
        held=[OffsetRange(PARTITION, start, end) for start, end in held],
        limits=Limits(max_events, 64 * MIB, MIB),
        settings=chosen,
        decoder=None,
    )


def planned(start: int, end: int) -> FixedEnd:
    return FixedEnd(end, Plan(end, end - start, "digest", "shape"))


def cut(what: Cutter, start: int, end: int) -> list[ClosedWindow]:
    """The windows that are closed while the records from `start` to `end` are taken, one by one."""
    windows = []
    for offset in range(start, end):
        what.take(chunk(offset, offset + 1), 0.0)
        if reason := what.due(0.0):
            windows.append(what.close(reason, "topic"))
    return windows


def ranges(windows: Sequence[ClosedWindow]) -> list[tuple[int, int]]:
    return [(window.range.start, window.range.end) for window in windows]


def test_windows_close_at_the_limit_and_tile() -> None:
    """Each begins where the one before it ends."""
    windows = cut(cutter(), 0, 7)

    assert ranges(windows) == [(0, 3), (3, 6)]
    assert {window.closed_by for window in windows} == {"events"}


def test_fixed_ends_come_first_and_exactly() -> None:
    """The plan [10, 17) and the object [17, 21) are cut as they were, then the limit holds again."""
    what = cutter(planned(10, 17), FixedEnd(21, None), position=10)
    assert what.repeats

    windows = cut(what, 10, 27)

    assert ranges(windows) == [(10, 17), (17, 21), (21, 24), (24, 27)]
    assert [window.closed_by for window in windows] == ["plan", "plan", "events", "events"]
    assert [window.plan is not None for window in windows] == [True, False, False, False]
    assert not what.repeats


def test_a_slice_ends_at_a_fixed_end() -> None:
    """Of the records 15 to 18 those at 15 and 16 are in [10, 17), the record at 17 is not."""
    what = cutter(planned(10, 17), position=10)

    assert what.take(chunk(10, 15), 0.0) == 5
    assert what.due(0.0) is None
    assert what.take(chunk(15, 19), 0.0) == 2

    assert what.next == 17
    assert what.due(0.0) == "plan"


def test_a_fixed_end_whose_last_record_is_gone_stops() -> None:
    """The record at 16 does not come: the next one is after the end."""
    what = cutter(planned(10, 17), position=10)
    what.take(chunk(10, 16), 0.0)

    with pytest.raises(RecordsMissing, match=r"\[10, 17\)"):
        what.take(chunk(17, 20), 0.0)


def test_a_fixed_end_is_kept_without_its_last_record_if_configured_so() -> None:
    """No record is taken, and the window ends where it was planned to end."""
    what = cutter(planned(10, 17), position=10, on_missing_records="continue")
    what.take(chunk(10, 16), 0.0)

    assert what.take(chunk(17, 20), 0.0) == 0

    assert what.next == 17
    assert ranges([what.close("plan", "")]) == [(10, 17)]


def test_the_clock_begins_with_the_first_record() -> None:
    """The deadline is flush_interval after it; a moment earlier nothing is due."""
    what = cutter()
    due = 100.0 + FLUSH_SECONDS
    before = what.deadline
    what.take(chunk(0, 1), 100.0)
    what.take(chunk(1, 2), 150.0)

    assert (before, what.deadline) == (None, due)
    assert what.due(due - 0.001) is None
    assert what.due(due) == "time"
    what.close("time", "")
    after = what.deadline
    assert after is None


def test_a_fixed_end_has_no_deadline() -> None:
    """Its records come as late as they come, and it cannot be closed early."""
    what = cutter(planned(10, 17), position=10)
    what.take(chunk(10, 15), 0.0)

    assert what.deadline is None
    assert what.due(1e9) is None
    assert not what.closable


def test_a_window_without_exported_records_belongs_to_the_next_range() -> None:
    """[0, 3) is all tombstones: the next window is [0, 6), so that ranges tile."""
    what = cutter()
    empty = _tombstones(what)
    assert (empty.manifest, empty.next_start) == (None, 0)

    (window,) = cut(what, 3, 6)

    assert (window.range.start, window.range.end, window.position) == (0, 6, 3)


def _tombstones(what: Cutter) -> ClosedWindow:
    what.take(chunk(0, 3, values={0: None, 1: None, 2: None}), 0.0)
    return what.close("events", "")


def test_a_range_that_the_sink_holds_is_recognized() -> None:
    """By its start and its end; the next range starts at its end, whatever is exported of it."""
    what = cutter(FixedEnd(3, None), held=[(0, 3)])

    window = _tombstones(what)

    assert window.held
    assert window.next_start == 3


def test_only_the_planned_window_goes_to_the_dead_letters() -> None:
    """The sink refused it, having accepted what is before 12: the next range starts there."""
    what = cutter(planned(10, 14), position=10, refused=SinkRefused("no more", accepted=12))

    refused, new = cut(what, 10, 17)

    assert (refused.refused, refused.next_start) == (True, 12)
    assert isinstance(what.route_of(refused), DeadLetterRoute)
    assert (new.refused, new.range.start, new.position) == (False, 12, 14)
    assert isinstance(what.route_of(new), PlannedRoute)


def test_a_record_that_cannot_be_exported_leaves_its_slice_untaken() -> None:
    """It stops the partition; the window is thrown away by the caller."""
    what = cutter()

    with pytest.raises(PartitionStopped, match="offset 1"):
        what.take(chunk(0, 3, values={1: b"\x0efeature"}), 0.0)

    what.forget()
    assert what.next == 0


def test_heavy_records_are_taken_few_at_a_time() -> None:
    """100 records of 5 MiB together: 20 at a time weigh a MiB."""
    what = cutter(max_events=1_000)
    account = Account(MemoryShare())
    heavy = replace(chunk(0, 100), weight=Weight(account, 5 * MIB))

    assert what.take(heavy, 0.0) == 20
