"""What a worker says at its start of a configuration that may not be meant."""

import json
import urllib.request
from pathlib import Path

from confluent_kafka.admin import AdminClient

from tests.support.kafka_records import Sent, produce
from tests.support.running_worker import RunningWorker, Topics, await_records, configuration

EVENT = b'{"kind":"feature","userKey":"u","creationDate":1618228297,"key":"new-checkout","value":true}'


def test_another_name_on_a_filled_output_topic_is_logged(
    admin: AdminClient, bootstrap: str, tmp_path: Path
) -> None:
    """The worker that would export everything again logs it, not the one that wrote it, and nobody does on an
    empty topic."""
    topics = Topics.create(admin, "names")
    sinks = {"lines": {"type": "log", "flush_interval": "200ms"}}
    config = configuration(bootstrap, tmp_path, topics, sinks=sinks)
    produce(bootstrap, topics.ingest, [Sent(b"k", EVENT)])

    with RunningWorker(config, tmp_path) as first:
        await_records(bootstrap, topics.output, 1)
        first.stop()
    with RunningWorker(config, tmp_path) as same:
        same.healthy()
        same.stop()
    with RunningWorker(config | {"name": f"{topics.ingest}-2"}, tmp_path) as other:
        said = other.await_event("name_is_new")
        other.healthy()

        assert f"the group {topics.ingest}-2.enrich has no offsets of {topics.ingest}" in str(said["hint"])
        assert first.seen("name_is_new") == same.seen("name_is_new") == []
        assert len(other.seen("name_is_new")) == 1


def test_warnings_are_logged_and_a_star_listens_everywhere(
    admin: AdminClient, bootstrap: str, tmp_path: Path
) -> None:
    """The log has the lines of `config check`; the pages answer at IPv4, and at IPv6 where there is any."""
    topics = Topics.create(admin, "warned")
    config = configuration(
        bootstrap,
        tmp_path,
        topics,
        sinks={"lines": {"type": "log"}},
        registry={"url": "http://127.0.0.1:9"},
        web={"host": "*"},
    )

    with RunningWorker(config, tmp_path) as worker:
        worker.healthy()
        assert [str(line["problem"]).partition(":")[0] for line in worker.seen("configuration_warning")] == [
            "registry.url"
        ]
        if Path("/proc/net/if_inet6").exists():
            port = worker.config["web"]["port"]
            with urllib.request.urlopen(f"http://[::1]:{port}/live", timeout=10) as answer:
                assert json.load(answer)["live"] is True
