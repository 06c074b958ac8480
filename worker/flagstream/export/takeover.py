"""What the last owner of a partition left, and what follows from it. Pure decisions, no I/O.

Three things show it: the committed offset, the metadata beside it (a plan, perhaps), and the ranges that the
sink holds from there on. Whatever does not fit together stops the partition, with the ways out.

Texts for people use the sink's word for what it makes of windows (``unit``: objects, requests, records,
lines, or windows).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from flagstream.chunk import Partition, Position
from flagstream.errors import PartitionStopped, RecordsMissing
from flagstream.kafka.commit_metadata import Committed, Plan
from flagstream.kafka.topic_id import differ
from flagstream.window import OffsetRange, OtherwiseNamed

_NOT_LISTED = ("requests", "records", "lines")
"""What can be neither listed afterwards nor taken back: another place or a removal is not a way out."""


@dataclass(frozen=True, slots=True)
class FixedEnd:
    """The end of a window that was decided before: by a plan, or (``plan`` None) by an object that the sink
    holds.
    """

    end: int
    plan: Plan | None


@dataclass(frozen=True, slots=True)
class Takeover:
    """Where the range of the next window starts, and the ends of the windows that come before any new one."""

    range_start: int
    ends: list[FixedEnd]


def unit_of(sink: object) -> str:
    """What ``sink`` calls what it makes of windows (:class:`flagstream.sinks.protocol.Sink`)."""
    return str(getattr(sink, "unit", "windows"))


def _where_named(unit: str) -> str:
    """In a layout a window is several objects, and its index names them."""
    return " (in a layout: each that its index names)" if unit == "objects" else ""


def _another_place(unit: str) -> str:
    return f"give the sink another place, or remove its {unit}"


def first_range_start(origin: Position, found: Committed) -> int:
    """Return where the next window's range starts: at the committed offset, or earlier if the records before
    it were exported nowhere.
    """
    if origin.committed is None:
        return origin.offset
    return origin.committed if found.range_start is None else found.range_start


def take_over(
    partition: Partition,
    origin: Position,
    found: Committed,
    held: Sequence[OffsetRange] | None,
    fingerprint: str,
    unit: str,
) -> Takeover:
    """Decide how the export begins at ``origin``, beside whose offset ``found`` is committed, when the sink
    holds ``held`` (None: the sink cannot know). Called once, before the first window is cut.

    For example with 10 committed, the plan [10, 17) and an object [17, 21): the first two windows end at 17
    and at 21, and new windows begin at 21.

    Raises PartitionStopped or RecordsMissing where these do not fit together.
    """
    start = first_range_start(origin, found)
    if found.plan is not None:
        takeover = repeat(partition, origin, found.plan, start, held, fingerprint, unit)
    elif held:
        takeover = adopt(partition, origin, start, held, unit)
    else:
        takeover = Takeover(start, [])
    check_names(partition, held or (), takeover)
    return takeover


def check_topic(partition: Partition, before: str, now: str, unit: str) -> None:
    """Raises PartitionStopped where the topic with the id ``before`` was deleted, and ``now`` another one has
    its name. Either is empty where it is not known.
    """
    if differ(before, now):
        way_out = "Stop this sink and delete the group's offsets of the topic"
        if unit not in _NOT_LISTED:
            way_out = f"Stop this sink, delete the group's offsets of the topic, and {_another_place(unit)}"
        raise PartitionStopped(
            f"{partition} was recreated (its topic id is {now}, what was exported until now belongs to "
            f"{before}): offsets mean other records now. {way_out}"
        )


def repeat(
    partition: Partition,
    origin: Position,
    plan: Plan,
    start: int,
    held: Sequence[OffsetRange] | None,
    fingerprint: str,
    unit: str,
) -> Takeover:
    """Deliver the plan again exactly as it was cut. Raises PartitionStopped or RecordsMissing if that is not
    possible.
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
            f"the window [{start}, {plan.end}) of {partition} was planned with another configuration of the "
            f"sink (fingerprint {plan.config}, now {fingerprint}) and may be {done} already. Ways out: run "
            f"with the old configuration until the window is committed; or {look}"
        )
    if plan.end > origin.high:
        raise RecordsMissing(
            f"the window [{start}, {plan.end}) of {partition} is planned, but the topic ends at "
            f"{origin.high}: it "
            "was truncated or recreated"
        )
    if plan.end > origin.offset:
        # Nothing is stored after a plan, unless offsets were set back: then those windows come next.
        # What ends where we begin was refused and became dead letters, yet was stored by an earlier try.
        after = [
            window
            for window in held or ()
            if (window.start, window.end) != (start, plan.end) and window.end > (origin.committed or 0)
        ]
        later = adopt(partition, origin, plan.end, after, unit)
        return Takeover(start, [FixedEnd(plan.end, plan), *later.ends])
    # All of its records are gone, and the sink is configured to continue. If the window is stored, the next
    # one starts after it.
    stored = any((window.start, window.end) == (start, plan.end) for window in held or ())
    return Takeover(plan.end if stored else start, [])


def go_on_with(
    partition: Partition,
    origin: Position,
    held: Sequence[OffsetRange],
    policy: Literal["stop", "continue"],
    unit: str,
) -> int:
    """Return the offset to go on at when the sink holds windows, but no offset is committed: the group's
    offsets were lost (expired, deleted with the group or with the topic). Raises PartitionStopped unless
    ``policy`` is to continue.

    It is the *start* of the last window, which is then adopted. Windows are delivered one after the
    other, so all others are whole. The last one may have been interrupted: some of its objects may be
    missing (in a layout perhaps none, only its index), or its dead letters may be missing. What is there
    of it is found, and has to be what this topic holds: the digest shows if it is of another topic of the
    same name.
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
            f"{known}, and records of the last window, {last}, are no longer in the topic, so nothing "
            f"shows whether all of it is stored. Way out: look whether it is{_where_named(unit)}, and reset "
            f"the group's offset of this partition to {last.end}"
        )
    if policy == "stop":
        raise PartitionStopped(
            f"{known}. Ways out: reset the group's offset of this partition to {last.start}, or set "
            'on_lost_offsets = "continue", to deliver the last window again (only what is missing of it is '
            "stored) and go on after it; if the topic was recreated, give the sink another place"
        )
    return last.start


def adopt(
    partition: Partition, origin: Position, start: int, held: Sequence[OffsetRange], unit: str
) -> Takeover:
    """Windows from our position on were stored by an owner whose commit was lost, or offsets were reset:
    their cuts hold, and each is delivered (found already there) again. Raises PartitionStopped where they do
    not tile.
    """
    at = start
    while held and held[0].start == at and held[0].end <= origin.offset:
        # Stored after all, by a try of which we saw no answer, before its records became dead letters.
        start = at = held[0].end
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
    return Takeover(start, [FixedEnd(window.end, None) for window in held])


def check_names(partition: Partition, held: Sequence[OffsetRange], takeover: Takeover) -> None:
    """Raises PartitionStopped where a window to be delivered is stored under another name already."""
    ends = {window.end for window in takeover.ends}
    others = [window for window in held if isinstance(window, OtherwiseNamed) and window.end in ends]
    if others:
        raise PartitionStopped(
            f"{partition}: the sink holds {others[0]} as {others[0].name}, a name that it would not give it "
            "now (another format or compression); it would be stored twice. Ways out: run with the old "
            "configuration until the committed offset has passed it; or reset the group's offset of this "
            f"partition to {others[-1].end}, after what is stored so; if the topic was recreated, give the "
            "sink another place"
        )
