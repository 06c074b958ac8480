"""Numbers that do not mislead: what metrics say while a webhook is down, or does not answer."""

from pathlib import Path

from confluent_kafka.admin import AdminClient

from tests.support.exporting import events, kafka_section
from tests.support.kafka_limits import BrokerLimits
from tests.support.kafka_records import Sent, produce
from tests.support.receiver import Hang, Receiver, Reply, receiving
from tests.support.running_worker import (
    Configuration,
    RunningWorker,
    Topics,
    await_records,
    configuration,
    eventually,
)

RAW = (
    b'{"kind":"feature","contextKind":"user","userKey":"u","creationDate":1700000000,"key":"new-checkout",'
    b'"variation":"on","value":true,"default":false,"version":"1"}'
)


def hook(receiver: Receiver) -> Configuration:
    """A sink that soon tries again."""
    return {
        "type": "webhook",
        "endpoint_url": receiver.url,
        "allow_private_addresses": True,
        "flush_interval": "200ms",
        "breaker_pause": "200ms",
    }


def test_lag_is_what_is_not_exported(
    admin: AdminClient, bootstrap: str, limits: BrokerLimits, tmp_path: Path
) -> None:
    """While a receiver is down the lag and the age grow, of the sink and not of the stage before it; when all
    is exported they are 0, though the output topic ends in the markers of transactions.
    """
    topics = Topics.create(admin, "lag")
    with receiving() as receiver:
        receiver.answer = lambda request: Reply(503)
        config = configuration(
            bootstrap,
            tmp_path,
            topics,
            kafka=kafka_section("classic", limits),
            sinks={"hook": hook(receiver)},
            log={"level": "debug"},
        )
        with RunningWorker(config, tmp_path) as worker:
            worker.healthy()
            assert worker.value("flagstream_lag_records", source="hook") == 0
            produce(bootstrap, topics.ingest, [Sent(None, RAW)] * 30)
            await_records(bootstrap, topics.output, 30)
            eventually(lambda: worker.value("flagstream_lag_records", source="enrich") == 0)
            eventually(lambda: worker.value("flagstream_lag_records", source="hook") >= 30)
            eventually(lambda: worker.value("flagstream_behind_seconds", source="hook") > 3)
            eventually(lambda: worker.value("flagstream_since_delivery_seconds", source="hook") > 3)
            assert worker.value("flagstream_problems", source="hook", kind="sink_unavailable") == 1
            assert worker.value("flagstream_ready") == 1
            receiver.answer = lambda request: Reply()
            worker.healthy()
            eventually(lambda: worker.value("flagstream_lag_records", source="hook") == 0)
            assert worker.value("flagstream_lag_to_high_watermark_records", source="hook") == 0
            assert worker.value("flagstream_behind_seconds", source="hook") == 0
            assert worker.value("flagstream_retention_margin_records", source="hook") >= 30
            for step in ("chunk_read", "window_closed", "sink_called", "offset_committed"):
                assert worker.seen(step), f'log.level = "debug" does not show {step}'
            assert worker.seen("transaction_committed")


def test_a_call_that_does_not_come_back_is_seen(
    admin: AdminClient, bootstrap: str, limits: BrokerLimits, tmp_path: Path
) -> None:
    """A receiver that takes a request and never answers: a gauge, a problem and a line say so, long before
    any time-out; and no longer once it answers."""
    topics = Topics.create(admin, "hang")
    produce(bootstrap, topics.output, [Sent(None, value) for value in events(3)])
    with receiving() as receiver:
        receiver.answer = lambda request: Hang()
        settings = {**hook(receiver), "timeout": "120s"}
        config = configuration(
            bootstrap, tmp_path, topics, kafka=kafka_section("classic", limits), sinks={"hook": settings}
        )
        with RunningWorker(config, tmp_path, arguments=("--sink", "hook")) as worker:
            worker.await_event("delivery_under_way", what=f"deliver {topics.output}-0")
            problems = worker.await_problem(lambda problems: "no answer for" in str(problems))
            assert "the sink hangs or is slow" in str(problems["hook"])
            assert worker.value("flagstream_problems", source="hook", kind="delivery_under_way") == 1
            assert worker.value("flagstream_delivery_under_way_seconds", source="hook") > 10
            assert worker.ready()
