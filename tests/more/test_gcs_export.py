"""The export stage works with Google Cloud Storage on a real Kafka and on fake-gcs-server."""

from collections.abc import Iterator

import pytest

from tests.kafka.test_gcs import (
    BUCKET,
    setting,
    test_a_failing_store_delays_and_nothing_else,
    test_a_killed_worker_is_continued_exactly,
)
from tests.support.fake_gcs import FakeGcs

__all__ = [
    "setting",
    "test_a_failing_store_delays_and_nothing_else",
    "test_a_killed_worker_is_continued_exactly",
]


@pytest.fixture
def server() -> Iterator[FakeGcs]:
    with FakeGcs() as server:
        server.create_bucket(BUCKET)
        yield server
