"""The export stage works with Google Cloud Storage on a real Kafka and on fake-gcs-server."""

from collections.abc import Iterator

import pytest

from tests.kafka.test_gcs import *  # noqa: F403
from tests.kafka.test_gcs import BUCKET
from tests.support.fake_gcs import FakeGcs


@pytest.fixture
def server() -> Iterator[FakeGcs]:
    with FakeGcs() as server:
        server.create_bucket(BUCKET)
        yield server
