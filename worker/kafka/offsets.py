"""What we write beside a committed offset: the plan of the next window, and how to read it back.

Kafka keeps up to 4,095 characters of metadata with each committed offset. Ours is one JSON object:

=========== ==========================================================================================
``v``       version of this format, 1
``from``    the offset from which the next window is *named*, when the records before the committed offset
            were exported nowhere (all rejected); absent when it is the committed offset itself
``end``     a plan: the window ``[committed offset, end)`` is to be delivered before anything else
``n``       its exported records
``digest``  their content digest
``unknown`` ids of schemas in its records that the registry did not know; they count as unknown whenever
            the window is repeated, so that it is the same; absent when there are none
``cfg``     fingerprint of the sink's configuration that the plan was made with
``tid``     the topic's id, where the broker tells it: a topic that was recreated has another one
``since``   when the group began, ms since the epoch, if it was told to start at "latest"; every later commit
            repeats it
``of``      how many partitions the topic had then
=========== ==========================================================================================

An offset without such metadata was not committed by us: an operator's reset.
"""

from dataclasses import dataclass

import msgspec

VERSION = 1


class MetadataUnreadable(ValueError):
    """The metadata is of a version that this worker does not know; another one with it must take over."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The committed intention to deliver ``[committed offset, end)``. Once sent it never changes."""

    end: int
    records: int
    digest: str
    config: str
    unknown: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, order=True)
class Since:
    """When a group that was told to start at "latest" began, ms since the epoch, and how many partitions the
    topic had: one that was added later is new to the group, whatever the timestamps of its records.
    """

    at: int
    partitions: int


class _Fields(msgspec.Struct, omit_defaults=True):
    v: int = 0
    named_from: int | None = msgspec.field(default=None, name="from")
    end: int | None = None
    n: int | None = None
    digest: str | None = None
    cfg: str | None = None
    unknown: tuple[int, ...] = ()
    tid: str = ""
    since: int | None = None
    of: int | None = None


@dataclass(frozen=True, slots=True)
class Committed:
    """The metadata of a committed offset. ``ours`` is False where there was none that we wrote."""

    plan: Plan | None = None
    named_from: int | None = None
    topic_id: str = ""
    since: Since | None = None
    ours: bool = True

    def text(self) -> str:
        """As committed: ``{"v":1}`` and whatever else is known."""
        fields = _Fields(v=VERSION, named_from=self.named_from, tid=self.topic_id)
        if self.since is not None:
            fields.since, fields.of = self.since.at, self.since.partitions
        if self.plan is not None:
            fields.end, fields.n = self.plan.end, self.plan.records
            fields.digest, fields.cfg = self.plan.digest, self.plan.config
            fields.unknown = self.plan.unknown
        return msgspec.json.encode(fields).decode()

    @classmethod
    def parse(cls, text: str) -> "Committed":
        """Read metadata back. Raises MetadataUnreadable for a newer version; foreign text is
        ``ours=False``.
        """
        try:
            fields = msgspec.json.decode(text, type=_Fields)
        except msgspec.DecodeError:
            return cls(ours=False)
        if fields.v > VERSION:
            raise MetadataUnreadable(
                f"offset metadata of version {fields.v}, this worker knows up to {VERSION}: {text}"
            )
        if fields.v == 0:
            return cls(ours=False)
        plan = None
        if fields.end is not None:
            plan = Plan(fields.end, fields.n or 0, fields.digest or "", fields.cfg or "", fields.unknown)
        since = None
        if fields.since is not None:
            # An early version gave no count: any partition may have been added later.
            since = Since(fields.since, fields.of or 0)
        return cls(plan, fields.named_from, fields.tid, since)
