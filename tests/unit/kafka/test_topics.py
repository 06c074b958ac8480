"""What a broker reports about a topic, and what becomes of values that no client takes."""

import pytest
from structlog.testing import capture_logs

from flagstream.config.settings import TopicSettings
from flagstream.kafka import topics
from flagstream.kafka.topics import record_limit
from flagstream.record_limits import too_small


@pytest.fixture(autouse=True)
def nothing_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start without any topic that was logged before."""
    monkeypatch.setattr(topics, "_logged_limit", {})


@pytest.mark.parametrize(
    ("reported", "limit"),
    [("4000", 4_000), ("1048588", 1_048_588), ("1000000000", 1_000_000_000), ("2147483647", 1_000_000_000)],
)
def test_the_limit_is_the_topics_own_as_far_as_a_client_takes_it(reported: str, limit: int) -> None:
    """The limit is the topic's own, up to librdkafka's 1,000,000,000; a topic's setting goes up to
    2,147,483,647.
    """
    assert record_limit("t", {"max.message.bytes": reported}) == limit


@pytest.mark.parametrize("config", [{}, {"max.message.bytes": ""}, {"max.message.bytes": "None"}])
def test_a_limit_that_the_broker_does_not_report_is_the_default_said_once(config: dict[str, str]) -> None:
    """Gateways do not report the limit: then the default holds, and the log says so once for each topic."""
    with capture_logs() as logs:
        assert record_limit("t", config) == record_limit("t", config) == 1_000_000
        assert record_limit("u", config) == 1_000_000

    assert [(entry["event"], entry["topic"]) for entry in logs] == [
        ("topic_limit_unseen", "t"),
        ("topic_limit_unseen", "u"),
    ]


def test_a_topic_that_takes_too_little_is_a_mistake_in_its_configuration() -> None:
    """A topic below 2,000 bytes is refused with the name of the setting, as no dead letter would keep its
    headers. The ingest topic is only read, so its limit does not count.
    """
    settings = TopicSettings()
    small = {"cleanup.policy": "delete", "max.message.bytes": "999"}

    fault = topics._fault(settings, settings.output, small)
    assert fault is not None
    assert "topics.output: flag-evaluations-enriched takes records of at most 999 bytes" in fault
    assert topics._fault(settings, settings.ingest, small) is None
    assert too_small({"max.message.bytes": "2000"}) is None
    assert too_small({}) is None
