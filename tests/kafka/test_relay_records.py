"""What a real GO Feature Flag relay wrote to Kafka goes through the whole worker unchanged."""

import gzip
import json
from collections import Counter
from pathlib import Path

from confluent_kafka.admin import AdminClient

from tests.support.kafka_jars import REPOSITORY
from tests.support.kafka_records import Sent, produce
from tests.support.running_worker import RunningWorker, Topics, await_records, configuration

RECORDS = (REPOSITORY / "tests/goff/relay-kafka/records.jsonl").read_bytes().splitlines()


def canonical(lines: list[bytes | None]) -> Counter[str]:
    """JSON texts with keys sorted, each with how often it is there."""
    return Counter(json.dumps(json.loads(line or b"null"), sort_keys=True) for line in lines)


def test_the_relays_records_come_out_of_topic_and_files_once_and_equal(
    admin: AdminClient, bootstrap: str, tmp_path: Path
) -> None:
    """Keyed by user as the relay does it: each record is once in the output topic and once in the files."""
    topics = Topics.create(admin, "relay", partitions=3)
    archive = tmp_path / "archive"
    sink = {"type": "file", "path": str(archive), "flush_interval": "1s"}
    produce(
        bootstrap,
        topics.ingest,
        [Sent(json.loads(line)["userKey"].encode(), line) for line in RECORDS],
    )

    with RunningWorker(
        configuration(bootstrap, tmp_path, topics, sinks={"archive": sink}), tmp_path
    ) as worker:
        output = await_records(bootstrap, topics.output, len(RECORDS))
        partitions = {record.partition for record in output}
        worker.await_event("window_delivered", count=len(partitions))
        assert worker.stop() == 0

    files = [gzip.decompress(file.read_bytes()) for file in archive.rglob("*.gz")]
    expected = canonical(list(RECORDS))
    assert canonical([record.value for record in output]) == expected
    assert canonical([line for file in files for line in file.splitlines()]) == expected
    assert {record.key for record in output} == {json.loads(line)["userKey"].encode() for line in RECORDS}
