"""A sink that is denied, or wants nothing more: the worker is ready, reports what waits, and goes on."""

from pathlib import Path
from signal import SIGHUP

from confluent_kafka.admin import AdminClient

from tests.support.exporting import events, files, kafka_section
from tests.support.kafka_limits import BrokerLimits
from tests.support.kafka_records import Sent, produce
from tests.support.receiver import Reply, receiving
from tests.support.running_worker import RunningWorker, Topics, configuration, eventually


def test_a_sink_that_is_shut_holds_its_partitions(
    admin: AdminClient, bootstrap: str, limits: BrokerLimits, tmp_path: Path
) -> None:
    """A rollout goes on while a destination is denied: the worker is in its groups and ready, and metrics say
    what waits. After the repair and a SIGHUP it exports all of it.
    """
    topics = Topics.create(admin, "shut", partitions=2)
    for partition in (0, 1):
        produce(bootstrap, topics.output, [Sent(None, value, None, partition) for value in events(15)])
    blocked = tmp_path / "archive"
    blocked.write_text("a file where a folder should be")
    config = configuration(
        bootstrap, tmp_path, topics, kafka=kafka_section("classic", limits), sinks={"archive": files(blocked)}
    )
    with RunningWorker(config, tmp_path, arguments=("--sink", "archive")) as worker:
        worker.await_event("partitions_assigned")
        worker.await_problem(lambda problems: "open: " in str(problems.get("archive")))
        eventually(worker.ready)
        eventually(lambda: worker.value("flagstream_lag_records", source="archive") == 30)
        eventually(lambda: worker.value("flagstream_behind_seconds", source="archive") > 0)
        assert worker.value("flagstream_assigned_partitions", source="archive") == 2
        blocked.unlink()
        worker.send(SIGHUP)
        worker.await_event("looking_again")
        worker.healthy()
        eventually(lambda: worker.value("flagstream_lag_records", source="archive") == 0)
        assert worker.stop() == 0


def test_a_worker_whose_sink_stays_shut_stops_in_order(
    admin: AdminClient, bootstrap: str, limits: BrokerLimits, tmp_path: Path
) -> None:
    """Nothing is delivered, nothing is committed, and the exit code is 0."""
    topics = Topics.create(admin, "shut")
    produce(bootstrap, topics.output, [Sent(None, value) for value in events(5)])
    blocked = tmp_path / "archive"
    blocked.write_text("")
    config = configuration(
        bootstrap, tmp_path, topics, kafka=kafka_section("classic", limits), sinks={"archive": files(blocked)}
    )
    with RunningWorker(config, tmp_path, arguments=("--sink", "archive")) as worker:
        worker.await_event("partitions_assigned")
        worker.await_event("sink_failed", what="open")
        assert worker.stop() == 0


def test_a_receiver_that_was_gone_is_asked_again(
    admin: AdminClient, bootstrap: str, limits: BrokerLimits, tmp_path: Path
) -> None:
    """After 410 each partition has one line and no other, and counts as stopped. When the receiver is back
    and the worker gets SIGHUP, all of it arrives without a restart.
    """
    topics = Topics.create(admin, "gone", partitions=4)
    for partition in range(4):
        produce(bootstrap, topics.output, [Sent(None, value, None, partition) for value in events(3)])
    with receiving() as receiver:
        receiver.answer = lambda request: Reply(410)
        hook = {
            "type": "webhook",
            "endpoint_url": receiver.url,
            "allow_private_addresses": True,
            "flush_interval": "200ms",
        }
        config = configuration(
            bootstrap, tmp_path, topics, kafka=kafka_section("classic", limits), sinks={"hook": hook}
        )
        with RunningWorker(config, tmp_path, arguments=("--sink", "hook")) as worker:
            worker.await_event("partition_stopped", count=4)
            problems = worker.await_problem(lambda problems: len(problems.get("hook", ())) == 4)
            assert all("410 Gone" in line for line in problems["hook"])
            assert worker.value("flagstream_stopped_partitions", source="hook") == 4
            assert worker.value("flagstream_problems", source="hook") == 4
            assert worker.ready()
            worker.send(SIGHUP)
            worker.await_event("partition_stopped", count=8)
            receiver.answer = lambda request: Reply()
            worker.send(SIGHUP)
            worker.healthy()
            eventually(lambda: worker.value("flagstream_lag_records", source="hook") == 0)
            assert worker.value("flagstream_stopped_partitions", source="hook") == 0
