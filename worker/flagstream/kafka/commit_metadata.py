"""The metadata beside a committed offset: the plan of the next window and what else the next owner has to
know.

Kafka keeps up to 4,095 characters of metadata with each committed offset. The worker writes one JSON object:

=========== ==========================================================================================
``v``       version of this format: 1, or 2 for a plan that is divided, which a worker that knows only
            version 1 refuses
``from``    where the range of the next window starts, if the records before the committed offset were
            exported nowhere (all rejected); absent if that is the committed offset itself, unless that was
            committed before the sink could be asked what it holds
``end``     a plan: the window ``[committed offset, end)`` is to be delivered before anything else
``n``       its exported records
``digest``  their content digest
``at``      version 2: everything before this offset is settled, and is not sent again
``cuts``    version 2: where the parts from ``at`` on are cut beyond the sink's own cuts
``out``     version 2: the ranges before ``at`` that the sink refused, which are to become dead letters
``why``     version 2: the sink's word for the refusal that the last cut was made for
``unknown`` ids of schemas in its records that the registry did not know; they count as unknown whenever
            the window is repeated, so that its content stays the same; absent if there are none
``cfg``     fingerprint of the sink's configuration that the plan was made with
``tid``     the topic's id, if the broker reports it: a topic that was recreated has another one
``since``   when the group began, ms since the epoch, if it began at "latest"; every later commit repeats it
``of``      how many partitions the topic had then
=========== ==========================================================================================

``cuts`` and ``out`` are ascending numbers in base 36, joined by full stops; each is the distance from the
one before it, the first from ``at`` or from 0.

An offset without such metadata was not committed by a worker: an operator has reset it.
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
"""Characters that ``out`` may take. A plan with the largest numbers, 100 unknown schemas and the about 90
cuts that there can be at a time (:mod:`flagstream.export.parts`) leaves more room; a test checks that.
"""
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


class MetadataUnreadable(PartitionStopped):
    """The metadata is of a version that this worker does not know; a worker that knows it has to take
    over.
    """


@dataclass(frozen=True, slots=True)
class Plan:
    """Records the committed intention to deliver ``[committed offset, end)``. It never changes once it is
    sent."""

    end: int
    records: int
    digest: str
    config: str
    unknown: tuple[int, ...] = ()
    division: "Division | None" = None


@dataclass(frozen=True, slots=True)
class Division:
    """How far a window whose parts were divided is delivered, and how the rest of it is cut.

    It is committed before a request under new ids, and when more is settled: see
    :mod:`flagstream.export.parts`. ``cuts`` come on top of the sink's own cuts, all after ``at``. ``refused``
    are ranges ``[start, end)`` before ``at``; ``why`` is the sink's word for the refusal that led to the last
    cut.
    """

    at: int
    cuts: tuple[int, ...] = ()
    refused: tuple[tuple[int, int], ...] = ()
    why: str = ""

    @property
    def full(self) -> bool:
        """Whether there is no room for more in ``refused``."""
        return len(self.refused_text()) > MOST_REFUSED

    def refused_text(self) -> str:
        """Return ``refused`` as it is committed. Ranges that touch become one."""
        merged: list[list[int]] = []
        for start, end in self.refused:
            if merged and merged[-1][1] == start:
                merged[-1][1] = end
            else:
                merged.append([start, end])
        return _distances(0, chain.from_iterable(merged))


@dataclass(frozen=True, slots=True, order=True)
class GroupStart:
    """When a group that starts at "latest" began (``at``, ms since the epoch), and how many partitions the
    topic had then: a partition that was added later is read from its beginning, whatever the timestamps of
    its records are.
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
    """Holds the metadata of a committed offset. ``ours`` is False if no worker wrote it."""

    plan: Plan | None = None
    range_start: int | None = None
    topic_id: str = ""
    group_start: GroupStart | None = None
    ours: bool = True

    def unasked(self, offset: int | None) -> bool:
        """Whether ``offset``, to which this metadata belongs, is where the group began, and was committed
        before the sink could be asked what it holds. If the sink then holds windows, offsets were lost all
        the same.
        """
        return self.plan is None and self.range_start is not None and self.range_start == offset

    def text(self) -> str:
        """Return the text to commit: ``{"v":1}`` and what else is known. It has at most :data:`LIMIT`
        characters, unless a division has too many cuts.
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
        """Read metadata back. Text that no worker wrote gives ``ours=False``.

        Raises MetadataUnreadable for a newer version, and for a division that makes no sense.
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
            # An early version wrote no count: any partition may have been added later.
            group_start = GroupStart(fields.since, fields.of or 0)
        return cls(plan, fields.range_start, fields.tid, group_start)


def _divided(plan: Plan | None, fields: _Fields, text: str) -> Plan:
    """Return the plan with its division. One that cannot be read must not be ignored: ids depend on it."""
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
