"""What people read when a partition stops speaks of what the sink has, and names ways out that it has."""

import pytest

from flagstream.chunk import Partition, Position
from flagstream.errors import PartitionStopped
from flagstream.export.takeover import adopt, check_topic, go_on_with, repeat, unit_of
from flagstream.kafka.commit_metadata import Plan
from flagstream.sinks.kafka.other_cluster import OtherClusterSink
from flagstream.sinks.kafka.own_cluster import TopicSink
from flagstream.sinks.log import LogSink
from flagstream.sinks.objects import ObjectSink
from flagstream.sinks.objects.file import FileSink
from flagstream.sinks.webhook.sink import WebhookSink
from flagstream.window import OffsetRange

PARTITION = Partition("evaluations", 3)
ORIGIN = Position(1, 10, 10, "", 0, 100)
PLAN = Plan(20, 10, "digest", "former")
FOREIGN = {
    "requests": ("object", "file", "layout", "stored"),
    "records": ("object", "file", "layout", "stored"),
    "lines": ("object", "file", "layout", "stored"),
    "objects": ("request",),
    "windows": ("object", "file", "layout", "request"),
}


def test_every_sink_says_what_it_has() -> None:
    """One that says nothing, such as a user's, has windows."""
    units = {sink: unit_of(sink) for sink in (ObjectSink, FileSink, WebhookSink, LogSink)}
    assert list(units.values()) == ["objects", "objects", "requests", "lines"]
    assert unit_of(TopicSink) == unit_of(OtherClusterSink) == "records"
    assert unit_of(object()) == "windows"


@pytest.mark.parametrize("unit", FOREIGN)
def test_another_configuration(unit: str) -> None:
    """The cure that comes to mind first, other limits, stops the partition: the text must be of use."""
    held = None if unit in ("requests", "records", "lines") else [OffsetRange(PARTITION, 10, 20)]
    with pytest.raises(PartitionStopped) as stopped:
        repeat(PARTITION, ORIGIN, PLAN, 10, held, "now", unit)
    text = str(stopped.value)
    assert unit in text
    assert "old configuration" in text
    assert "reset the group's offset of this partition to 20 if all d" in text
    assert [word for word in FOREIGN[unit] if word in text] == []


@pytest.mark.parametrize("unit", FOREIGN)
def test_another_topic(unit: str) -> None:
    """A sink that stores nothing has no other place to be given."""
    with pytest.raises(PartitionStopped, match="recreated") as stopped:
        check_topic(PARTITION, "before", "now", unit)
    text = str(stopped.value)
    assert ("another place" in text) == (unit in ("objects", "windows"))
    assert [word for word in FOREIGN[unit] if word in text] == []


def test_what_a_users_sink_holds_is_no_object() -> None:
    """Lost offsets, and windows that do not tile: rows of a database are no objects."""
    held = [OffsetRange(PARTITION, 5, 15)]
    with pytest.raises(PartitionStopped) as lost:
        go_on_with(PARTITION, ORIGIN, held, "stop", "rows")
    with pytest.raises(PartitionStopped) as overlap:
        adopt(PARTITION, ORIGIN, 3, held, "rows")
    assert "object" not in str(lost.value) + str(overlap.value)
    assert "rows" in str(overlap.value)
