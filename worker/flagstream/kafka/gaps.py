"""Where a topic does not hold what is to be read next: what happened, in words, and what a person can do."""

from dataclasses import dataclass

from flagstream.chunk import Partition, Position


@dataclass(frozen=True, slots=True)
class Gap:
    """Why a partition cannot be read on. ``overtaken``: records were deleted, and others come behind them;
    else there is nothing behind, and no setting says where to go on.
    """

    overtaken: bool
    problem: str
    ways_out: str


def describe_gap(partition: Partition, position: Position, *, doing: str, group: str, setting: str) -> Gap:
    """``doing`` is what was to be done with the records (``read``, ``exported``) by ``group``; ``setting``
    tells to go on behind deleted ones.
    """
    there = f"{partition}: the topic holds the offsets {position.low} to {position.high}, but the next to be "
    at = f"{doing} is {position.offset}: "
    if position.offset < position.low:
        why = f"records were deleted before they were {doing}, or the topic was recreated"
        return Gap(True, there + at + why, f'{setting} = "continue"')
    why = "the offset was set beyond the topic's end, or the topic was recreated or cut"
    return Gap(
        False,
        there + at + why,
        f"reset the offset of {partition} in the group {group} to one that the topic holds; or delete it, if "
        "the topic was recreated. Its members have to be stopped for both",
    )
