"""The ways of windows: one for each kind of sink, and what the next commit carries."""

from typing import Any

import pytest

from flagstream.errors import RangesRefused, SinkRefused
from flagstream.export.routes import DeadLetterRoute, PartsRoute, PlannedRoute, TransactionalRoute, route_to
from flagstream.export.windows import ClosedWindow
from flagstream.kafka.commit_metadata import Plan
from flagstream.sinks.kafka.own_cluster import TopicSink
from flagstream.sinks.kafka.settings import KafkaSinkSettings
from flagstream.sinks.settings import SinkSettings
from flagstream.window import Manifest, OffsetRange
from tests.support.recording import PARTITION, RecordingKafka, RecordingSink
from tests.unit.export.test_partition_parts import PartsRecordingSink

RANGE = OffsetRange(PARTITION, 10, 17)


def route(sink: Any) -> Any:
    kafka = RecordingKafka([])
    return route_to("test", sink, SinkSettings(type="test"), kafka, kafka)


def refused(error: SinkRefused) -> DeadLetterRoute:
    return DeadLetterRoute("test", RecordingSink([]).begin, RecordingKafka([]), error, "dead", lambda: 1_000)


def window(*, plan: bool = False, exported: bool = True, rejects: int = 0) -> ClosedWindow:
    manifest = Manifest(RANGE, 7, "digest", "shape") if exported else None
    repeated = Plan(17, 7, "digest", "shape") if plan else None
    letters: list[Any] = [object()] * rejects
    return ClosedWindow(RANGE, 10, manifest, letters, "events", 0, 0, repeated, None, ())


def test_each_kind_of_sink_has_its_route() -> None:
    """Chosen once, by what the sink can do."""
    assert type(route(RecordingSink([]))) is PlannedRoute
    assert type(route(PartsRecordingSink([]))) is PartsRoute
    assert type(route(TopicSink(KafkaSinkSettings(topic="copies")))) is TransactionalRoute


@pytest.mark.parametrize(
    ("following", "announced"),
    [
        (window(), True),
        (window(plan=True), False),
        (window(exported=False), False),
        (window(rejects=1), False),
    ],
    ids=["new", "planned already", "nothing to deliver", "with a transaction of its own"],
)
def test_a_new_window_is_announced(following: ClosedWindow, announced: bool) -> None:
    """Its plan travels with the commit before it, if it needs a plan and its end is a plain commit."""
    assert route(RecordingSink([])).announces(following) == announced
    assert not route(TopicSink(KafkaSinkSettings(topic="copies"))).announces(following)


def test_no_window_is_announced_after_a_part_was_divided() -> None:
    """Whoever takes an undivided plan over would not divide it."""
    parts = route(PartsRecordingSink([]))
    assert parts.announces(window())

    parts._refusals.divided = True

    assert not parts.announces(window())


def test_the_next_range_starts_at_the_end_of_what_was_exported() -> None:
    """At the start of a window of which nothing is exported, so that ranges tile."""
    for chosen in (route(RecordingSink([])), route(TopicSink(KafkaSinkSettings(topic="copies")))):
        assert chosen.next_start(RANGE, exported=True) == 17
        assert chosen.next_start(RANGE, exported=False) == 10


@pytest.mark.parametrize(
    ("error", "start"),
    [
        (SinkRefused("no"), 10),
        (SinkRefused("no", accepted=12), 12),
        (SinkRefused("no", events={11: "bad"}), 17),
        (RangesRefused("no", [(11, 12, "bad"), (15, 17, "bad")]), 15),
        (RangesRefused("no", [(11, 12, "bad")]), 17),
    ],
)
def test_after_a_refused_window_the_range_starts_where_the_sink_left_off(
    error: SinkRefused, start: int
) -> None:
    """What was refused at its end was exported nowhere."""
    assert refused(error).next_start(RANGE, exported=True) == start
