"""What a webhook and another cluster are told, and what an answer leaves open."""

from collections.abc import Callable
from typing import Any

import pytest

from flagstream.errors import PartRefused, SinkUnavailable
from flagstream.sinks.kafka import other_cluster
from flagstream.sinks.registry import SINKS, build
from flagstream.sinks.webhook.http import WebhookAnswer
from flagstream.testing import PARTITION, events, fill

SECRET_PATH = "/services/T0/very-secret"


def hook(**settings: Any) -> Any:
    """A webhook sink that has sent nothing yet."""
    return build(
        SINKS["webhook"].model_validate(
            {"type": "webhook", "endpoint_url": f"https://hooks.example.com{SECRET_PATH}?t=1", **settings}
        )
    )


def send(sink: Any, monkeypatch: pytest.MonkeyPatch, answer: WebhookAnswer) -> None:
    """Send one request, which gets this answer."""
    monkeypatch.setattr(sink._client, "post", lambda *args, **kwargs: answer)
    window = fill(sink, events(3))
    (part,) = sink.parts(window.payload)
    sink.send(window.manifest, part)


@pytest.mark.parametrize("status", [502, 504])
def test_a_gateway_s_answer_leaves_open_whether_the_part_arrived(
    monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """The receiver behind a gateway may have taken the part, so it must not be divided from here on."""
    with pytest.raises(SinkUnavailable) as failed:
        send(hook(), monkeypatch, WebhookAnswer(status, None, True, False))

    assert failed.value.unanswered


def test_a_503_says_that_the_part_was_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The receiver itself has refused the request for now."""
    with pytest.raises(SinkUnavailable) as failed:
        send(hook(), monkeypatch, WebhookAnswer(503, None, True, False))

    assert not failed.value.unanswered


@pytest.mark.parametrize("repeated", [True, False])
def test_a_refusal_says_whether_an_earlier_try_may_have_arrived(
    monkeypatch: pytest.MonkeyPatch, repeated: bool
) -> None:
    """A part that was sent twice may have been accepted by the first try."""
    with pytest.raises(PartRefused) as refused:
        send(hook(), monkeypatch, WebhookAnswer(422, None, True, repeated))

    assert refused.value.repeated is repeated


@pytest.mark.parametrize("status", [400, 404, 429, 500])
def test_an_error_shows_no_path_of_the_receiver(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    """The path and the query of a webhook are often its secret."""
    with pytest.raises(Exception, match=f"answers {status}") as failed:
        send(hook(), monkeypatch, WebhookAnswer(status, None, True, False))

    assert "https://hooks.example.com" in str(failed.value)
    assert "secret" not in str(failed.value)
    assert "t=1" not in str(failed.value)


def test_another_cluster_is_written_to_by_an_idempotent_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every in-sync replica acknowledges, and a batch that is sent again is stored once."""
    made: list[dict[str, Any]] = []

    def make(properties: dict[str, Any], logger: object) -> Any:
        made.append(properties)

    monkeypatch.setattr(other_cluster, "Producer", make)
    sink: Any = build(
        SINKS["kafka"].model_validate({"type": "kafka", "topic": "t", "bootstrap_servers": "there:9092"})
    )
    monkeypatch.setattr(sink, "_topic_limit", lambda: 1_000_000)

    sink.open()

    assert [(one.get("acks"), one.get("enable.idempotence")) for one in made] == [("all", True)]


class LateClient:
    """Stands in for a Producer whose brokers answer only after some polls."""

    def __init__(self) -> None:
        self.polls = 0
        self._reports: list[Callable[[Any, Any], None]] = []

    def produce(self, topic: str, value: bytes, key: bytes, on_delivery: Callable[[Any, Any], None]) -> None:
        self._reports.append(on_delivery)

    def poll(self, seconds: float) -> None:
        self.polls += 1
        if self.polls % 3 == 0 and self._reports:
            self._reports.pop(0)(None, None)


def test_another_cluster_is_waited_for_until_it_has_every_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """The window is delivered once each of its records is acknowledged; until then its offset must not be
    committed.
    """
    client = LateClient()
    monkeypatch.setattr(other_cluster, "Producer", lambda properties, logger: client)
    sink: Any = build(
        SINKS["kafka"].model_validate({"type": "kafka", "topic": "t", "bootstrap_servers": "there:9092"})
    )
    monkeypatch.setattr(sink, "_topic_limit", lambda: 1_000_000)
    window = fill(sink, events(4))

    sink.deliver(window.manifest, window.payload)

    assert len(window.payload.taken) == 4
    assert client.polls == 12


def test_what_a_topic_refused_is_known_until_it_is_committed() -> None:
    """A record that the topic refused is rejected in every window up to its offset, and not after that."""
    sink: Any = build(SINKS["kafka"].model_validate({"type": "kafka", "topic": "t"}))
    window = fill(sink, events(3))
    refused = window.payload[1]
    sink.refuse(PARTITION, 2, {(refused.key, refused.value): "no"})

    sink.committed(PARTITION, 1)
    assert len(fill(sink, events(3)).payload) == 2

    sink.committed(PARTITION, 2)
    assert len(fill(sink, events(3)).payload) == 3
