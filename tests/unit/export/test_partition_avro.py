"""A partition of an output topic in Avro: a window that is repeated is the one that was planned, whatever the
registry has learned or forgotten meanwhile.
"""

import json
from dataclasses import replace
from typing import Any, cast

import pytest
from fastavro import parse_schema

from flagstream.chunk import Chunk, Position
from flagstream.dead_letters import DeadLetter
from flagstream.export.budget import MemoryBudget
from flagstream.export.partition import PartitionExport
from flagstream.export.windows import MOST_UNKNOWN, Limits
from flagstream.kafka.commit_metadata import Committed as Metadata
from flagstream.kafka.commit_metadata import Plan
from flagstream.kafka.tenure import Tenure
from flagstream.outcomes import Dead
from flagstream.sinks.settings import SinkSettings
from flagstream.topic_formats.decoding import RegistryDecoder
from flagstream.topic_formats.known_schemas import ASK_AGAIN, KnownSchemas
from tests.support.recording import (
    EPOCH,
    PARTITION,
    Committed,
    Planned,
    Put,
    RecordingKafka,
    RecordingSink,
    Restarted,
    Step,
    StoredRecord,
    Transacted,
    begin,
    destination,
)
from tests.support.virtual_time import in_virtual_time, passed, settled

MIB = 1024**2
SCHEMA = parse_schema({"type": "record", "name": "R", "fields": [{"name": "n", "type": "int"}]})
KNOWN, OTHER = 1, 2


class Registry:
    """What is known of ids at the moment."""

    def __init__(self, *known: int) -> None:
        self.known = set(known)

    def get(self, identity: bytes) -> Any:
        known = int.from_bytes(identity) in self.known
        return SCHEMA if known else Dead("unknown_schema", "no such schema")


def avro(number: int) -> bytes:
    """A small record, with the id of its schema."""
    return b"\0" + number.to_bytes(4) + b"\x02"


class Rig:
    """A partition of an Avro topic between a recorded Kafka and a recorded sink."""

    def __init__(self, registry: Registry, max_events: int = 5) -> None:
        self.trace: list[Step] = []
        self.kafka = RecordingKafka(self.trace)
        self.sink = RecordingSink(self.trace)
        self.to = destination(
            self.sink,
            SinkSettings(type="test", flush_interval=60.0),
            Limits(max_events, 64 * MIB, MIB),
            self.kafka,
            MemoryBudget(256 * MIB),
            RegistryDecoder(cast(KnownSchemas, registry)),
        )

    async def begin(self, committed: int | None = None, metadata: str = "") -> PartitionExport:
        position = Position(EPOCH, committed or 0, committed, metadata, 0, 1_000)
        self.kafka.at = committed or 0
        export = begin(self.to, Tenure(PARTITION, position, self.kafka), self.kafka)
        await settled()
        return export

    async def planned(self, export: PartitionExport, *ids: int) -> str:
        """The metadata with which these records were planned."""
        self.kafka.delivering.clear()
        export.accept(chunk(*ids))
        await settled()
        [text] = self.kafka.texts
        export.drop()
        return text


def chunk(*ids: int) -> Chunk:
    records = [StoredRecord(offset, avro(number)) for offset, number in enumerate(ids)]
    return Chunk(PARTITION, EPOCH, 0, len(ids), records)


def letters_of(letters: list[DeadLetter]) -> list[tuple[str, bytes | None]]:
    return [(letter.reason, letter.value) for letter in letters]


@in_virtual_time
async def test_an_id_that_was_unknown_when_planned_stays_so_for_that_window() -> None:
    """It is known when the window is repeated: the window is the same all the same, the record a dead letter
    as it was to be, and the windows after it take the id as it is now.
    """
    before = Rig(Registry(KNOWN))
    text = await before.planned(await before.begin(), KNOWN, OTHER, KNOWN, OTHER, KNOWN)

    after = Rig(Registry(KNOWN, OTHER))
    export = await after.begin(0, text)
    export.accept(chunk(KNOWN, OTHER, KNOWN, OTHER, KNOWN, OTHER, OTHER, OTHER, OTHER, OTHER))
    await settled()

    assert json.loads(text)["unknown"] == [OTHER]
    assert after.trace == [
        Put("evaluations-3-0-5"),
        Transacted(("unknown_schema",) * 2, Committed(5, then=Planned(5, 10))),
        Put("evaluations-3-5-10"),
        Committed(10),
    ]
    assert letters_of(after.kafka.letters) == [("unknown_schema", avro(OTHER))] * 2


@in_virtual_time
async def test_an_id_is_unknown_for_a_whole_window_or_not_at_all() -> None:
    """It becomes known while a window fills: the plan has one list of ids, so the window sticks to it."""
    registry = Registry(KNOWN)
    rig = Rig(registry)
    export = await rig.begin()

    export.accept(chunk(KNOWN, OTHER))
    await settled()
    registry.known.add(OTHER)
    records = [StoredRecord(offset, avro(OTHER)) for offset in range(2, 5)]
    export.accept(Chunk(PARTITION, EPOCH, 2, 5, records))
    await settled()

    assert [letter.reason for letter in rig.kafka.letters] == ["unknown_schema"] * 4


@in_virtual_time
async def test_a_schema_that_was_forgotten_is_waited_for() -> None:
    """An event that was planned must not become a dead letter, nor its partition wait for ever: it looks
    again by itself.
    """
    before = Rig(Registry(KNOWN, OTHER))
    text = await before.planned(await before.begin(), KNOWN, OTHER, KNOWN, KNOWN, KNOWN)

    after = Rig(Registry(KNOWN))
    export = await after.begin(0, text)
    export.accept(chunk(KNOWN, OTHER, KNOWN, KNOWN, KNOWN))
    await passed(ASK_AGAIN - 1)

    assert "no longer has the schemas [2]" in str(export.stopped)
    assert Restarted() not in after.trace
    await passed(2)
    assert after.trace[-1] == Restarted()
    assert after.kafka.letters == []


@in_virtual_time
async def test_a_stopped_partition_that_is_lost_does_not_look_again() -> None:
    """It is another's."""
    before = Rig(Registry(KNOWN, OTHER))
    text = await before.planned(await before.begin(), KNOWN, OTHER, KNOWN, KNOWN, KNOWN)
    after = Rig(Registry(KNOWN))
    export = await after.begin(0, text)
    export.accept(chunk(KNOWN, OTHER, KNOWN, KNOWN, KNOWN))
    await settled()

    export.drop()
    await passed(2 * ASK_AGAIN)

    assert Restarted() not in after.trace


@in_virtual_time
@pytest.mark.parametrize("cut", [1, 7, 1_000])
async def test_a_plan_names_no_more_ids_than_have_room(cut: int) -> None:
    """Garbage that looks like a new id in each record closes windows early: Kafka takes 4,096 characters."""
    rig = Rig(Registry(KNOWN), max_events=1_000)
    export = await rig.begin()
    ids = [KNOWN, *range(2**32 - 250, 2**32), KNOWN]
    whole = chunk(*ids)

    for start in range(0, len(ids), cut):
        records = whole.records[start : start + cut]
        export.accept(replace(whole, start=start, end=start + len(records), records=records))
        await settled()
    await passed(61)

    assert max(map(len, rig.kafka.texts)) < 2_000
    assert len(rig.kafka.letters) == 250
    assert [len(json.loads(text).get("unknown", [])) for text in rig.kafka.texts if "end" in text] == [
        MOST_UNKNOWN,
        50,
    ]


def test_plans_of_topics_without_unknown_ids_are_as_they_were() -> None:
    """Nothing is added to what is committed."""
    assert "unknown" not in Metadata(Plan(5, 5, "d", "c")).text()
    assert Metadata.parse(Metadata(Plan(5, 5, "d", "c", (1, 2))).text()).plan == Plan(5, 5, "d", "c", (1, 2))
