"""A stage waits for what it needs, and the pages say for what."""

import asyncio
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

from flagstream import prerequisites
from flagstream.config.settings import Settings
from flagstream.flags import FlagFileError
from flagstream.kafka.topics import TopicFacts, TopicsNotReady
from flagstream.operate.health import Health, Problem
from flagstream.prerequisites import Prerequisites
from flagstream.topic_formats.registry import RegistryError


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prerequisites, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr(prerequisites, "LONGEST_RETRY_SECONDS", 0.0)


def test_a_stage_is_starting_with_the_last_error_until_there_is_an_answer() -> None:
    """The log has a line for each new reason, not for each try."""
    health = Health()
    outcomes: Iterator[Exception | str] = iter(
        [FlagFileError("no file"), FlagFileError("no file"), FlagFileError("not YAML"), "flags"]
    )
    seen: list[Problem | None] = []

    def ask() -> str:
        seen.append(health.starting.get("enrich"))
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    waiting = Prerequisites(Settings(), health, None)
    with capture_logs() as lines:
        assert asyncio.run(waiting.wait_for("enrich", ask, FlagFileError)) == "flags"

    assert seen == [
        None,
        Problem("flags", "no file"),
        Problem("flags", "no file"),
        Problem("flags", "not YAML"),
    ]
    assert [(line["event"], line["reason"]) for line in lines] == [
        ("stage_waits", "no file"),
        ("stage_waits", "not YAML"),
    ]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (TopicsNotReady("missing", "topic"), "topic"),
        (TopicsNotReady("no answer"), "kafka"),
        (RegistryError("unavailable", "no answer"), "registry"),
        (FlagFileError("no file"), "flags"),
    ],
)
def test_the_kind_of_a_problem_says_who_is_waited_for(error: Exception, kind: str) -> None:
    """Alerts distinguish brokers, topics, the registry and flags."""
    health = Health()
    outcomes: Iterator[Exception | None] = iter([error, None])

    def ask() -> None:
        if (outcome := next(outcomes)) is not None:
            raise outcome

    asyncio.run(Prerequisites(Settings(), health, None).wait_for("enrich", ask, type(error)))
    assert health.starting["enrich"].kind == kind


def test_facts_that_are_given_are_not_asked_for() -> None:
    """The demo's broker cannot answer: no client is made, and an unknown topic has no id."""
    facts = TopicFacts(ids={"flag-evaluations": "id-1"})
    waiting = Prerequisites(Settings(), Health(), facts)
    assert asyncio.run(waiting.topics("enrich", "flag-evaluations")) is facts
    assert waiting.topic_id("flag-evaluations") == "id-1"
    assert waiting.topic_id("other") == ""
