"""The proof with 200,000 events, under both group protocols."""

import os
from pathlib import Path

import pytest

from tests.chaos.proof import Protocol, prove

EVENTS = 200_000


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_every_event_arrives_once_whoever_dies_or_freezes(protocol: Protocol, tmp_path: Path) -> None:
    """Workers are killed at every step, frozen past their time-outs and woken, and come and go: each tracked
    event is in the output topic and the files once, and nothing else is; each kind of recovery was needed."""
    servers = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
    assert servers, "KAFKA_BOOTSTRAP_SERVERS is not set: run `make test`, which starts a Kafka"

    summary = prove(servers, protocol, EVENTS, tmp_path, lambda text: print(text, flush=True))
    print(summary)

    assert summary.failures == []
