"""What the last owner of a partition left behind, and what follows from it. Pure decisions, no I/O.

Three things tell of it: the committed offset, the metadata beside it (a plan, perhaps), and the ranges that
the sink holds from there on. Whatever does not fit together stops the partition, with the ways out.

Texts for people speak of what the sink has (``unit``: objects, requests, records, lines, or windows).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from flagstream.chunk import Partition, Position
from flagstream.errors import PartitionStopped, RecordsMissing
from flagstream.kafka.commit_metadata import Committed, Plan
from flagstream.kafka.topic_id import differ
from flagstream.window import OffsetRange, OtherwiseNamed

_UNTOLD = ("requests", "records", "lines")
"""What cannot be listed afterwards, nor taken back: other places and removals are no way out."""


@dataclass(frozen=True, slots=True)
class FixedWindow:
    """A window whose end is decided already: by a plan, or (``plan`` None) by an object that the sink
    holds.
    """

    end: int
    plan: Plan | None


@dataclass(frozen=True, slots=True)
class Inheritance:
    """``named``: where the range of the next window starts; ``windows``: those to be delivered before any new
    one.
    """

    named: int
    windows: list[FixedWindow]


def unit_of(sink: object) -> str:
    """What ``sink`` calls what it makes of windows (:class:`flagstream.sinks.protocol.Sink`)."""
    return str(getattr(sink, "unit", "windows"))


def _where_named(unit: str) -> str:
    """In a layout a window is several objects, and its index names them."""
    return " (in a layout: each that its index names)" if unit == "objects" else ""


def _another_place(unit: str) -> str:
    return f"give the sink another place, or remove its {unit}"


def first_name(origin: Position, found: Committed) -> int:
    """The start of the next window's range: the committed offset, or earlier where records were exported
    nowhere.
    """
    if origin.committed is None:
        return origin.offset
    return origin.committed if found.range_start is None else found.range_start


def check_topic(partition: Partition, before: str, now: str, unit: str) -> None:
    """Raises PartitionStopped where the topic with the id ``before`` was deleted, and ``now`` another one has
    its name. Either is empty where it is not known.
    """
    if differ(before, now):
        way_out = "Stop this sink and delete the group's offsets of the topic"
        if unit not in _UNTOLD:
            way_out = f"Stop this sink, delete the group's offsets of the topic, and {_another_place(unit)}"
        raise PartitionStopped(
            f"{partition} was recreated (its topic id is {now}, what was exported until now belongs to "
            f"{before}): offsets mean other records now. {way_out}"
        )


def repeat(
    partition: Partition,
    origin: Position,
    plan: Plan,
    named: int,
    held: Sequence[OffsetRange] | None,
    fingerprint: str,
    unit: str,
) -> Inheritance:
    """A plan is delivered again exactly as it was cut. Raises PartitionStopped or RecordsMissing if it cannot
    be.
    """
    if plan.config != fingerprint:
        if held is None:
            done = "sent"
            look = (
                f"find out on the other side which of its {unit} arrived, and reset the group's offset of "
                f"this partition to {plan.end} if all did, to {origin.committed} if none did; of a window "
                "that arrived in part either loses the rest or sends all of it again, under other ids"
            )
        else:
            done = "stored"
            look = (
                f"look whether its {unit} exist{_where_named(unit)}, and reset the group's offset of this "
                f"partition to {plan.end} if all do, to {origin.committed} if nothing of it is there"
            )
        raise PartitionStopped(
            f"the window [{named}, {plan.end}) of {partition} was planned with another configuration of the "
            f"sink (fingerprint {plan.config}, now {fingerprint}) and may be {done} already. Ways out: run "
            f"with the old configuration until the window is committed; or {look}"
        )
    if plan.end > origin.high:
        raise RecordsMissing(
            f"the window [{named}, {plan.end}) of {partition} is planned, but the topic ends at "
            f"{origin.high}: it "
            "was truncated or recreated"
        )
    if plan.end > origin.offset:
        # Nothing is stored behind a plan, unless offsets were set back: then those windows come next.
        # What ends where we begin was refused and became dead letters, yet was stored by an earlier try.
        behind = [
            window
            for window in held or ()
            if (window.start, window.end) != (named, plan.end) and window.end > (origin.committed or 0)
        ]
        later = adopt(partition, origin, plan.end, behind, unit)
        return Inheritance(named, [FixedWindow(plan.end, plan), *later.windows])
    # All of its records are gone, and we were told to go on. If it is stored, the next window starts behind
    # it.
    stored = any((window.start, window.end) == (named, plan.end) for window in held or ())
    return Inheritance(plan.end if stored else named, [])


def go_on_with(
    partition: Partition,
    origin: Position,
    held: Sequence[OffsetRange],
    policy: Literal["stop", "continue"],
    unit: str,
) -> int:
    """The offset to go on at when there is no committed offset, but windows: the group's offsets were lost
    (expired, deleted with the group or with the topic). Raises PartitionStopped unless ``policy`` is to
    continue.

    It is the *start* of the last window, which is then adopted. Windows are delivered one after the other, so
    all others are whole; the last may have been cut short by the same end: of its objects only some are
    there (in a layout perhaps none, only its index), or its dead letters are missing. What is there of it is
    found, and has to be what this topic holds: one of another topic of the same name is told by its digest.
    """
    last = max(held, key=lambda window: window.end)
    known = (
        f"{partition} has no committed offset, but the sink holds {len(held)} windows of it, from "
        f"{held[0].start} to {last.end} (the topic holds the offsets {origin.low} to {origin.high}): the "
        "group's offsets were lost"
    )
    if last.end > origin.high:
        raise PartitionStopped(
            f"{known}, and the topic was truncated or recreated. Ways out: {_another_place(unit)}"
        )
    if last.start < origin.low:
        raise PartitionStopped(
            f"{known}, and records of the last window, {last}, are no longer in the topic, so it cannot be "
            f"told whether all of it is stored. Way out: look whether it is{_where_named(unit)}, and reset "
            f"the group's offset of this partition to {last.end}"
        )
    if policy == "stop":
        raise PartitionStopped(
            f"{known}. Ways out: reset the group's offset of this partition to {last.start}, or set "
            'on_lost_offsets = "continue", to deliver the last window again (only what is missing of it is '
            "stored) and go on behind it; if the topic was recreated, give the sink another place"
        )
    return last.start


def adopt(
    partition: Partition, origin: Position, named: int, held: Sequence[OffsetRange], unit: str
) -> Inheritance:
    """Windows from our position on were stored by an owner whose commit was lost, or offsets were reset:
    their cuts hold, and each is delivered (found already there) again. Raises PartitionStopped where they do
    not tile.
    """
    at = named
    while held and held[0].start == at and held[0].end <= origin.offset:
        # Stored after all, by a try of which we saw no answer, before its records became dead letters.
        named = at = held[0].end
        held = held[1:]
    for window in held:
        if window.start < at:
            raise PartitionStopped(
                f"{partition}: the next window starts at {at}, but the sink holds {window}, which overlaps "
                "what is to come: another group exports the same partition to the same place, or offsets "
                "were reset to the middle of a window. Way out: reset the group's offset of this partition "
                f"to {window.start}, to deliver that window again (what is there of it is not stored twice)"
            )
        if window.start > at:
            raise PartitionStopped(
                f"{partition}: the next window starts at {at}, but the sink holds {window}, which overlaps "
                "what is to come: another group exports the same partition to the same place, offsets were "
                f"reset to before the sink began, or its {unit} from {at} on were deleted. Way out: reset "
                f"the group's offset of this partition to {window.start}; if {unit} were deleted, they stay "
                'away then, and "Deleted files" in docs/operations.md says how to get them back'
            )
        at = window.end
    if at > origin.high:
        raise PartitionStopped(
            f"{partition}: the sink holds {held[-1]}, but the topic ends at {origin.high}: it was truncated "
            f"or recreated. Way out: {_another_place(unit)}"
        )
    return Inheritance(named, [FixedWindow(window.end, None) for window in held])


def check_names(partition: Partition, held: Sequence[OffsetRange], inherited: Inheritance) -> None:
    """Raises PartitionStopped where a window to be delivered is stored under another name already."""
    ends = {window.end for window in inherited.windows}
    others = [window for window in held if isinstance(window, OtherwiseNamed) and window.end in ends]
    if others:
        raise PartitionStopped(
            f"{partition}: the sink holds {others[0]} as {others[0].name}, a name that it would not give it "
            "now (another format or compression); it would be stored twice. Ways out: run with the old "
            "configuration until the committed offset is behind it; or reset the group's offset of this "
            f"partition to {others[-1].end}, behind what is stored so; if the topic was recreated, give the "
            "sink another place"
        )
