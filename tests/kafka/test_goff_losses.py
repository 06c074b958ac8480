"""The cases in which GO Feature Flag loses or doubles events show here what the worker does instead.

The ten cases are those known of its data exporters up to v1.55.2; each test says first what happens there.
"""

import csv
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from confluent_kafka.admin import AdminClient
from pyarrow import parquet

from flagstream.units import MIB
from tests.support.archive import lines
from tests.support.exporting import Exporting, events, kafka_section
from tests.support.kafka_limits import BrokerLimits
from tests.support.kafka_records import Received, Sent, produce
from tests.support.receiver import Answer, CloseHalfWay, Receiver, Reply, Request, receiving
from tests.support.running_worker import RunningWorker, Topics, await_records, configuration, eventually

HELD = re.compile(r"^flagstream_export_window_memory_bytes (.+)$", re.MULTILINE)


@pytest.fixture
def setting(admin: AdminClient, bootstrap: str, tmp_path: Path, limits: BrokerLimits) -> Exporting:
    """Return a file sink called archive, whose windows close at ten events or after 300 ms."""
    return Exporting.create(admin, bootstrap, tmp_path, kafka=kafka_section("classic", limits))


def with_hook(setting: Exporting, receiver: Receiver, **hook: Any) -> Exporting:
    """Return the same with a webhook beside it."""
    settings = {
        "type": "webhook",
        "endpoint_url": receiver.url,
        "allow_private_addresses": True,
        "max_events": 10,
        "flush_interval": "300ms",
        "breaker_pause": "200ms",
        **hook,
    }
    config = {**setting.config, "sinks": {**setting.config["sinks"], "hook": settings}}
    return setting._replace(config=config)


def running(setting: Exporting, *sinks: str, crash: str = "") -> RunningWorker:
    """Return a worker with these sinks."""
    arguments = [argument for sink in sinks for argument in ("--sink", sink)]
    return RunningWorker(setting.config, setting.folder.parent, crash=crash, arguments=arguments)


def held(worker: RunningWorker) -> float:
    """Bytes that its windows hold."""
    (found,) = HELD.findall(worker.get("/metrics")[1])
    return float(found)


def down(request: Request) -> Answer:
    return Reply(503)


def up(request: Request) -> Answer:
    return Reply()


def mixed(*changes: dict[str, Any]) -> list[bytes]:
    """Complete feature events, one for each of ``changes``, that are changed so."""
    whole = {
        "kind": "feature",
        "contextKind": "user",
        "userKey": "ABCD",
        "creationDate": 1617970547,
        "key": "random-key",
        "variation": "Default",
        "value": "YO",
        "default": False,
        "version": "",
        "source": "SERVER",
    }
    return [json.dumps({**whole, "userKey": f"u{i}", **change}).encode() for i, change in enumerate(changes)]


def written_names(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*.jsonl.gz"))


def sorted_values(values: Iterable[bytes]) -> list[bytes]:
    return sorted(values, key=lambda value: (len(value), value))


def test_row_1_a_killed_process_loses_nothing(setting: Exporting) -> None:
    """There: all that was not flushed. Here SIGKILL with events in memory alone, none of them in a file: the
    next worker reads them from Kafka, each is stored once.
    """
    setting.produce(events(35))
    with setting.worker(max_events=100, flush_interval="1h") as killed:
        eventually(lambda: bool(killed.seen("partitions_assigned")) and held(killed) > 0)
        assert setting.stored() == []
        killed.kill()

    with setting.worker():
        assert setting.await_lines(35) == events(35)
        setting.await_committed(35)


def test_row_2_a_sink_that_is_down_at_the_end_gets_everything_later(setting: Exporting) -> None:
    """There: lost at Close. Here the worker ends in time, nothing is committed, and the next one delivers."""
    with receiving() as receiver:
        receiver.answer = down
        hooked = with_hook(setting, receiver)
        hooked.config["shutdown"] = {"budget": "1s"}
        setting.produce(events(25))
        with running(hooked, "hook") as worker:
            worker.await_event("sink_failed")
            assert worker.stop() == 0
        assert setting.committed(sink="hook").offset <= 0
        assert receiver.accepted == []

        receiver.answer = up
        with running(hooked, "hook"):
            eventually(lambda: len(receiver.values()) >= 25)
        assert receiver.values() == events(25)


def test_row_3_a_long_outage_takes_no_more_memory_than_allowed(setting: Exporting) -> None:
    """There: memory grows until the process is ended. Here the budget is filled, the partition pauses with
    most of its events unread, and when the sink is back everything arrives.
    """
    count = 60_000
    with receiving() as receiver:
        receiver.answer = down
        hooked = with_hook(setting, receiver, max_events=5000, max_bytes="256KiB", flush_interval="1h")
        hooked.config["sinks"] = {"hook": hooked.config["sinks"]["hook"]}
        hooked.config["export"] = {"memory_budget": "1MiB"}
        setting.produce(events(count))
        with running(hooked, "hook") as worker:
            worker.await_event("sink_failed")
            eventually(lambda: held(worker) >= MIB)
            assert held(worker) < 2 * MIB < sum(map(len, events(count)))
            assert setting.committed(sink="hook").offset <= 0

            receiver.answer = up
            eventually(
                lambda: sum(len(request.events) for request in list(receiver.accepted)) >= count - 5000
            )
            assert worker.stop() == 0
        assert receiver.values() == events(count)


def test_row_4_a_sink_that_never_succeeded_keeps_its_events(setting: Exporting) -> None:
    """There: what the other sink has taken is cleared away for both. Here each sink has offsets of its own:
    what one has taken stays for the other, which gets all of it when it is back.
    """
    with receiving() as receiver:
        receiver.answer = down
        hooked = with_hook(setting, receiver)
        setting.produce(events(35))
        with running(hooked, "archive", "hook") as worker:
            worker.await_event("sink_failed")
            assert setting.await_lines(35) == events(35)
            setting.await_committed(35)
            assert setting.committed(sink="hook").offset <= 0

            receiver.answer = up
            eventually(lambda: len(receiver.values()) >= 35)
        assert receiver.values() == events(35)
        assert lines(setting.stored()) == events(35)


def test_row_5_an_event_that_a_format_cannot_hold_blocks_nothing(setting: Exporting) -> None:
    """There: a null in Parquet, or a tracking event under the default CSV template, fails its batch for ever.
    Here Parquet holds the null as text, and the template's misfit is a dead letter of that sink alone.
    """
    tracking = {"kind": "tracking", "evaluationContext": {"targetingKey": "u2"}, "trackingEventDetails": None}
    values = mixed({}, {"value": None}, tracking, {})
    values[2] = json.dumps(
        {
            key: value
            for key, value in json.loads(values[2]).items()
            if key not in ("variation", "value", "default", "version", "source")
        }
    ).encode()
    setting.produce(values)
    folder = setting.folder
    setting.config["sinks"] = {
        "columns": {
            **setting.config["sinks"]["archive"],
            "format": "parquet",
            "path": str(folder / "columns"),
        },
        "rows": {
            **setting.config["sinks"]["archive"],
            "format": "csv",
            "compression": "none",
            "path": str(folder / "rows"),
        },
    }
    with running(setting, "columns", "rows") as worker:
        eventually(lambda: bool(list(folder.rglob("*.parquet"))) and bool(list(folder.rglob("*.csv"))))
        (letter,) = await_records(setting.bootstrap, setting.topics.dead_letters, 1)
        worker.healthy_but_for_dead_letters()
    (columns,) = folder.rglob("*.parquet")
    (rows,) = folder.rglob("*.csv")

    assert parquet.read_table(columns)["value"].to_pylist() == ['"YO"', "null", None, '"YO"']
    with rows.open(newline="") as file:
        assert [row[2] for row in csv.reader(file, delimiter=";")] == ["u0", "u1", "u3"]
    assert letter.value == values[2]
    assert dict(letter.headers)["flagstream-reason"] == b"no_place_in_template"
    assert dict(letter.headers)["flagstream-stage"] == b"sink.rows"


def test_row_6_names_of_one_second_never_meet(
    admin: AdminClient, bootstrap: str, tmp_path: Path, limits: BrokerLimits
) -> None:
    """There: names hold a second, and the second file of a second replaces the first. Here a name is the
    range that it holds: two workers fill one folder with windows of one moment, and each is there.
    """
    name = "flag-variation-{{ .Topic }}-{{ .Partition }}-{{ .Start }}-{{ .End }}.{{ .Format }}"
    kafka = kafka_section("classic", limits)
    setting = Exporting.create(
        admin, bootstrap, tmp_path, partitions=2, kafka=kafka, name=name, max_events=2, compression="none"
    )
    with setting.worker() as one, setting.worker() as other:
        one.await_event("partitions_assigned")
        other.await_event("partitions_assigned")
        for partition in (0, 1):
            setting.produce(events(40, first=100 * partition), partition)
        setting.await_committed(40, partitions=2)

    files = sorted(setting.folder.glob("flag-variation-*"))
    found = [line for file in files for line in file.read_bytes().splitlines()]
    assert len(files) >= 40
    assert sorted_values(found) == sorted_values([*events(40), *events(40, first=100)])


def test_row_7_success_is_told_when_everything_is_stored(setting: Exporting) -> None:
    """There: a part that failed is reported as success. Here a window of several objects, of which one cannot
    be written, is not committed; when it can be, that one is added and the others are found.
    """
    name = "flag={{ .Key }}/{{ .Topic }}-{{ .Partition }}-{{ .Start }}-{{ .End }}.{{ .Extension }}"
    setting.config["sinks"]["archive"]["name"] = name
    obstacle = setting.folder / "flag=b"
    obstacle.parent.mkdir(parents=True)
    obstacle.write_text("a file where a folder has to be")
    setting.produce(mixed({"key": "a"}, {"key": "b"}, {"key": "c"}))
    with setting.worker() as worker:
        worker.await_event("sink_failed")
        eventually(lambda: len(written_names(setting.folder)) == 2)
        assert setting.committed().offset <= 0
        obstacle.unlink()
        setting.await_committed(3)
        delivered = worker.await_event("window_delivered")

    assert delivered["already_there"] == 3  # the index of the window, a and c
    assert [each.partition("/")[0] for each in written_names(setting.folder)] == [
        "flag=a",
        "flag=b",
        "flag=c",
    ]


def test_row_8_what_is_tried_again_is_not_doubled(setting: Exporting) -> None:
    """There: a batch that failed half-way is sent again, without an id to recognise it by. Here a file is
    found where it was left, and a request comes again with the id and the events of before.
    """
    setting.produce(events(20))
    with running(setting, "archive", crash="export.delivering:kill") as killed:
        assert killed.wait() == -9
    with receiving() as receiver:
        # Two parts: the first is taken, the answer to the second is lost.
        receiver.plan(Reply(), CloseHalfWay())
        hooked = with_hook(setting, receiver, max_part_events=5)
        with running(hooked, "archive", "hook"):
            eventually(lambda: len(receiver.values()) >= 20)
            assert setting.await_lines(20) == events(20)
        assert receiver.values() == events(20)
        ids = [request.id for request in receiver.requests]
        assert ids[1] == ids[2]
        assert receiver.requests[1].body == receiver.requests[2].body
        assert len(set(ids)) == len(ids) - 1


class Enriched(NamedTuple):
    """What became of records in the ingest topic."""

    output: list[Received]
    letters: list[Received]
    metrics: str


BAD = b'{"kind":"feature","userKey":17,"creationDate":"yesterday","key":"banner"}'


@pytest.fixture(scope="module")
def enriched(admin: AdminClient, bootstrap: str, tmp_path_factory: pytest.TempPathFactory) -> Enriched:
    """Return what becomes of a good event, one that is none, one of a flag that is not tracked, and two of
    unusual sources."""
    topics = Topics.create(admin, "collector")
    good, quiet, bulk, unknown = mixed(
        {"key": "banner"},
        {"key": "quiet"},
        {"key": "banner", "source": "BULK"},
        {"key": "unknown", "source": "X"},
    )
    values = (good, BAD, quiet, bulk, unknown)
    produce(bootstrap, topics.ingest, [Sent(b"k", value) for value in values])
    folder = tmp_path_factory.mktemp("enriched")
    with RunningWorker(
        configuration(bootstrap, folder, topics), folder, arguments=("--stage", "enrich")
    ) as worker:
        output = await_records(bootstrap, topics.output, 3)
        letters = await_records(bootstrap, topics.dead_letters, 1)
        return Enriched(output, letters, worker.get("/metrics")[1])


def test_row_9_a_bad_event_among_good_ones_is_told_and_kept(enriched: Enriched) -> None:
    """There: the relay's collector answers 200 with the full count, and drops what it cannot convert. Here it
    is a dead letter with the reason, as it came, and those before and after it go on.
    """
    (letter,) = enriched.letters

    assert letter.value == BAD
    assert dict(letter.headers)["flagstream-reason"] == b"wrong_type"
    users = [json.loads(record.value or b"")["userKey"] for record in enriched.output]
    assert users == ["u0", "u2", "u3"]


def test_row_10_only_untracked_flags_are_left_out_and_they_are_counted(enriched: Enriched) -> None:
    """There: evaluating in bulk makes no events, by design. Here every event that is in the ingest topic goes
    on, whatever its source, and also when nobody knows its flag; what is left out by design are the events
    of flags with `trackEvents: false`, and they are counted.
    """
    sources = [json.loads(record.value or b"")["source"] for record in enriched.output]

    assert sources == ["SERVER", "BULK", "X"]
    assert 'flagstream_enrich_events_total{outcome="dropped",reason="untracked"} 1.0' in enriched.metrics
