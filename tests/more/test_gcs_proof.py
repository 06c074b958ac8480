"""Run a short proof into fake-gcs-server."""

from pathlib import Path

from tests.chaos.proof import Trial
from tests.chaos.test_proof import FEW, played


def test_every_event_is_stored_once_whoever_dies_around_a_delivery(tmp_path: Path) -> None:
    """Workers are killed before they store a window, after, and when they know: each tracked event is in one
    object."""
    assert played(Trial("classic", "gcs", FEW, short=True), tmp_path).failures == []
