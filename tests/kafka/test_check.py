"""`flagstream check`: what a worker would find at the start, without a worker."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from flagstream.cli import cli
from flagstream.errors import ExitCode
from tests.support.running_worker import Topics, configuration, to_toml


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a file of flags, of which one cannot be read."""
    (tmp_path / "good.yaml").write_text(
        "a: {variations: {x: 1}}\nb: {trackEvents: false, variation: {x: 1}}\n"
    )
    return tmp_path


def check(bootstrap: str, folder: Path, topics: Topics, *arguments: str, create: bool = False) -> Result:
    settings = configuration(bootstrap, folder, topics)
    settings["topics"] |= {"create": create}
    settings["flags"] = {"path": str(folder / "good.yaml")}
    settings["sinks"] = {"copy": {"type": "kafka", "topic": topics.output + ".copy"}, "out": {"type": "log"}}
    file = folder / "flagstream.toml"
    file.write_text(to_toml(settings))
    return CliRunner().invoke(cli, ["check", "-c", str(file), *arguments])


def lines(result: Result, *starts: str) -> Sequence[str]:
    return [line.strip() for line in result.output.splitlines() if line.strip().startswith(starts)]


def test_flags_and_topics_are_tried_before_the_sinks(
    admin: AdminClient, bootstrap: str, folder: Path
) -> None:
    """A topic that is missing fails; what shows only in use is unproved, and an invalid flag is named."""
    topics = Topics.create(admin, "checked", partitions=2)

    result = check(bootstrap, folder, topics)

    assert result.exit_code == ExitCode.UNEXPECTED
    invalid = "1 with mistakes, exported unless they say trackEvents: false: b has no variations"
    assert lines(result, "ok        flags") == [f"ok        flags: 2 from {folder}/good.yaml; {invalid}"]
    assert lines(result, "ok        topic") == [
        f"ok        topic {name}: 2 partitions" for name in sorted(topics)
    ]
    (missing,) = lines(result, "FAILED")
    assert missing.startswith(f"FAILED    topic {topics.output}.copy: is missing")
    assert any("transactional ids" in line for line in lines(result, "unproved"))
    assert result.output.index("read and write") < result.output.index("copy (kafka)")


def test_only_what_is_named_is_tried(admin: AdminClient, bootstrap: str, folder: Path) -> None:
    """A sink needs neither flags nor the ingest topic, the enrich stage no sink; nothing is created."""
    there = Topics.create(admin, "named")
    topics = there._replace(ingest=f"{there.ingest}.none")

    sink = check(bootstrap, folder, topics, "--sink", "out")
    enrich = check(bootstrap, folder, topics, "--stage", "enrich", create=True)

    assert sink.exit_code == ExitCode.OK, sink.output
    assert "flags:" not in sink.output
    assert f"topic {topics.ingest}" not in sink.output
    assert len(lines(sink, "ok        topic")) == 2
    assert enrich.exit_code == ExitCode.OK, enrich.output
    assert "(log)" not in enrich.output
    assert lines(enrich, f"unproved  topic {topics.ingest}: is missing")
    assert topics.ingest not in admin.list_topics(timeout=10).topics


def test_a_topic_that_would_lose_events_fails(admin: AdminClient, bootstrap: str, folder: Path) -> None:
    """Such a topic would end a worker; flags that cannot be read fail too."""
    topics = Topics.create(admin, "unfit", output={"cleanup.policy": "compact"})
    (folder / "good.yaml").unlink()

    result = check(bootstrap, folder, topics, "--stage", "enrich")

    assert result.exit_code == ExitCode.UNEXPECTED
    flags, output = lines(result, "FAILED")
    assert flags == f"FAILED    flags: {folder}/good.yaml: No such file or directory"
    assert "cleanup.policy=delete" in output


def test_another_name_on_a_filled_output_topic_is_told(
    admin: AdminClient, bootstrap: str, folder: Path
) -> None:
    """The check fails until that name has offsets of its own; an empty output topic is nobody's."""
    topics = Topics.create(admin, "renamed", partitions=2)
    said = [lines(check(bootstrap, folder, topics), "unproved  name", "ok        name")]
    producer = Producer({"bootstrap.servers": bootstrap})
    producer.produce(topics.output, b"{}", partition=1)
    assert producer.flush(30) == 0
    said.append(lines(check(bootstrap, folder, topics), "unproved  name", "ok        name"))
    name = configuration(bootstrap, folder, topics).get("name", "flagstream")
    group = Consumer({"bootstrap.servers": bootstrap, "group.id": f"{name}.enrich"})
    group.commit(offsets=[TopicPartition(topics.ingest, 0, 0)], asynchronous=False)
    group.close()
    said.append(lines(check(bootstrap, folder, topics), "unproved  name", "ok        name"))

    assert said[0] == said[2] == [f"ok        name: {name}"]
    (reported,) = said[1]
    assert reported.startswith(f"unproved  name: {topics.output} already holds records")
    assert f"the group {name}.enrich has no offsets of {topics.ingest}" in reported
