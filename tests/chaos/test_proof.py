"""Run the proof with 200,000 events into files, under both group protocols, and a short one into each other
store."""

import os
from pathlib import Path

import pytest

from flagstream.crashpoints import POINTS
from tests.chaos.destinations import SinkName
from tests.chaos.proof import Protocol, Summary, Trial, prove
from tests.chaos.scenario import WHOLE, in_layout

EVENTS = 200_000
FEW = 40_000


def played(trial: Trial, folder: Path) -> Summary:
    """Return the summary of a run."""
    servers = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
    assert servers, "KAFKA_BOOTSTRAP_SERVERS is not set: run `make test`, which starts a Kafka"
    summary = prove(servers, trial, folder, lambda text: print(text, flush=True))
    print(summary)
    return summary


OF_PARTS = {"export.dividing", "export.divided", "export.part_accepted"}
"""Steps of a sink that sends parts, of which the proof has none: tests/kafka/test_webhook.py dies there."""


def test_the_whole_proof_has_a_death_at_every_step() -> None:
    """A step that the worker gets must be added to the script."""
    assert in_layout(WHOLE).points | OF_PARTS == POINTS


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_every_event_arrives_once_whoever_dies_or_freezes(protocol: Protocol, tmp_path: Path) -> None:
    """Workers are killed at every step, frozen past their time-outs and woken, and come and go: each tracked
    event is in the output topic and the files once, and nothing else is; each kind of recovery was needed."""
    assert played(Trial(protocol, "file", EVENTS), tmp_path).failures == []


@pytest.mark.parametrize("sink", ["s3", "parquet-hive"])
def test_every_event_is_stored_once_whoever_dies_around_a_delivery(sink: SinkName, tmp_path: Path) -> None:
    """Workers are killed before they store a window, after, and when they know: each tracked event is in one
    object, and in a layout by fields each object is in one index."""
    assert played(Trial("classic", sink, FEW, short=True), tmp_path).failures == []
