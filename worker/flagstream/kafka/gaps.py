"""Describes, for people, what happened where a topic does not hold the next record, and what they can do."""

from dataclasses import dataclass

from flagstream.chunk import Partition, Position


@dataclass(frozen=True, slots=True)
class Gap:
    """Why a partition cannot be read any further.

    ``overtaken``: records were deleted, and the topic holds later ones. Otherwise it holds no later ones, and
    no setting can say where to go on.
    """

    overtaken: bool
    problem: str
    ways_out: str


def describe_gap(partition: Partition, position: Position, *, doing: str, group: str, setting: str) -> Gap:
    """Describe why ``group`` cannot go on at ``position``.

    ``doing`` is what it does with the records (``read``, ``exported``). ``setting`` is the setting that makes
    it go on after deleted records.
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
