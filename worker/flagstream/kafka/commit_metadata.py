"""What we write beside a committed offset: the plan of the next window, and how to read it back.

Kafka keeps up to 4,095 characters of metadata with each committed offset. Ours is one JSON object:

=========== ==========================================================================================
``v``       version of this format: 1, or 2 for a plan that is divided, which a worker that knows only
            version 1 refuses
``from``    the offset from which the next window is *named*, when the records before the committed offset
            were exported nowhere (all rejected); absent when it is the committed offset itself, unless
            that was committed before the sink could be asked what it holds
``end``     a plan: the window ``[committed offset, end)`` is to be delivered before anything else
``n``       its exported records
``digest``  their content digest
``at``      version 2: what lies before this offset is settled, and is not sent again
``cuts``    version 2: where the parts from ``at`` on are cut beyond the sink's own cuts
``out``     version 2: the ranges before ``at`` that the sink refused, which are to become dead letters
``why``     version 2: the sink's word for the refusal that the last cut was made for
``unknown`` ids of schemas in its records that the registry did not know; they count as unknown whenever
            the window is repeated, so that it is the same; absent when there are none
``cfg``     fingerprint of the sink's configuration that the plan was made with
``tid``     the topic's id, where the broker tells it: a topic that was recreated has another one
``since``   when the group began, ms since the epoch, if it was told to start at "latest"; every later commit
            repeats it
``of``      how many partitions the topic had then
=========== ==========================================================================================

``cuts`` and ``out`` are ascending numbers in base 36, joined by full stops; each is the distance from the
one before it, the first from ``at`` or from 0.

An offset without such metadata was not committed by us: an operator's reset.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import accumulate, chain, pairwise

import msgspec

from flagstream.errors import PartitionStopped

VERSION = 1
DIVIDED = 2
"""The version of a plan that is divided."""
LIMIT = 4_095
"""Characters of metadata that Kafka keeps: offset.metadata.max.bytes is 4,096."""
MOST_REFUSED = 1_000
"""Characters that ``out`` may take. With the largest numbers, 100 unknown schemas and the some 90 cuts that
there can be at a time (:mod:`flagstream.export.parts`) a plan leaves more; a test says so.
"""
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


class MetadataUnreadable(PartitionStopped):
    """The metadata is of a version that this worker does not know; another one with it must take over."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The committed intention to deliver ``[committed offset, end)``. Once sent it never changes."""

    end: int
    records: int
    digest: str
    config: str
    unknown: tuple[int, ...] = ()
    division: "Division | None" = None


@dataclass(frozen=True, slots=True)
class Division:
    """How far a window is delivered whose parts were divided, and how the rest of it is cut.

    A commit with it is made before a request under new ids or after what is settled has changed: see
    :mod:`flagstream.export.parts`. ``cuts`` come on top of the sink's own, all after ``at``. ``refused`` are
    ranges ``[start, end)`` before ``at``; ``why`` is the sink's word for what led to the last cut.
    """

    at: int
    cuts: tuple[int, ...] = ()
    refused: tuple[tuple[int, int], ...] = ()
    why: str = ""

    @property
    def full(self) -> bool:
        """Whether ``refused`` takes as much room as it may."""
        return len(self.refused_text()) > MOST_REFUSED

    def refused_text(self) -> str:
        """``refused`` as it is committed; ranges that touch are one."""
        merged: list[list[int]] = []
        for start, end in self.refused:
            if merged and merged[-1][1] == start:
                merged[-1][1] = end
            else:
                merged.append([start, end])
        return _distances(0, chain.from_iterable(merged))


@dataclass(frozen=True, slots=True, order=True)
class GroupStart:
    """When a group that was told to start at "latest" began, ms since the epoch, and how many partitions the
    topic had: one that was added later is new to the group, whatever the timestamps of its records.
    """

    at: int
    partitions: int


class _Fields(msgspec.Struct, omit_defaults=True):
    v: int = 0
    range_start: int | None = msgspec.field(default=None, name="from")
    end: int | None = None
    n: int | None = None
    digest: str | None = None
    cfg: str | None = None
    at: int | None = None
    cuts: str = ""
    out: str = ""
    why: str = ""
    unknown: tuple[int, ...] = ()
    tid: str = ""
    since: int | None = None
    of: int | None = None


@dataclass(frozen=True, slots=True)
class Committed:
    """The metadata of a committed offset. ``ours`` is False where there was none that we wrote."""

    plan: Plan | None = None
    range_start: int | None = None
    topic_id: str = ""
    group_start: GroupStart | None = None
    ours: bool = True

    def unasked(self, offset: int | None) -> bool:
        """Whether ``offset``, beside which this stands, is where the group began, committed before the sink
        could be asked what it holds: windows that it holds mean all the same that offsets were lost.
        """
        return self.plan is None and self.range_start is not None and self.range_start == offset

    def text(self) -> str:
        """As committed: ``{"v":1}`` and whatever else is known. At most :data:`LIMIT` characters, unless a
        division has too many cuts.
        """
        fields = _Fields(v=VERSION, range_start=self.range_start, tid=self.topic_id)
        if self.group_start is not None:
            fields.since, fields.of = self.group_start.at, self.group_start.partitions
        if self.plan is not None:
            fields.end, fields.n = self.plan.end, self.plan.records
            fields.digest, fields.cfg = self.plan.digest, self.plan.config
            fields.unknown = self.plan.unknown
            if (division := self.plan.division) is not None:
                fields.v, fields.at, fields.why = DIVIDED, division.at, division.why
                fields.cuts = _distances(division.at, division.cuts)
                fields.out = division.refused_text()
        return msgspec.json.encode(fields).decode()

    @classmethod
    def parse(cls, text: str) -> "Committed":
        """Read metadata back. Raises MetadataUnreadable for a newer version, and for a division that makes
        no sense; foreign text is ``ours=False``.
        """
        try:
            fields = msgspec.json.decode(text, type=_Fields)
        except msgspec.DecodeError:
            return cls(ours=False)
        if fields.v > DIVIDED:
            raise MetadataUnreadable(
                f"offset metadata of version {fields.v}, this worker knows up to {DIVIDED}: {text}"
            )
        if fields.v == 0:
            return cls(ours=False)
        plan = None
        if fields.end is not None:
            plan = Plan(fields.end, fields.n or 0, fields.digest or "", fields.cfg or "", fields.unknown)
        if fields.v == DIVIDED:
            plan = _divided(plan, fields, text)
        group_start = None
        if fields.since is not None:
            # An early version gave no count: any partition may have been added later.
            group_start = GroupStart(fields.since, fields.of or 0)
        return cls(plan, fields.range_start, fields.tid, group_start)


def _divided(plan: Plan | None, fields: _Fields, text: str) -> Plan:
    """The plan with its division. What cannot be read must not be passed over: ids depend on it."""
    unreadable = MetadataUnreadable(
        f"offset metadata of version {DIVIDED}, of a form that this worker cannot read: {text}"
    )
    if plan is None or fields.at is None:
        raise unreadable
    try:
        cuts, out = _offsets(fields.at, fields.cuts), _offsets(0, fields.out)
    except ValueError:
        raise unreadable from None
    if len(out) % 2:
        raise unreadable
    refused = tuple(zip(out[::2], out[1::2], strict=True))
    return replace(plan, division=Division(fields.at, tuple(cuts), refused, fields.why))


def _distances(first: int, offsets: Iterable[int]) -> str:
    return ".".join(_base36(to - before) for before, to in pairwise([first, *offsets]))


def _offsets(first: int, text: str) -> list[int]:
    return list(accumulate((int(part, 36) for part in text.split(".")), initial=first))[1:] if text else []


def _base36(number: int) -> str:
    digits = ""
    while number or not digits:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
    return digits
