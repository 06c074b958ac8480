"""A Google Cloud Storage of somebody else's making, and what tests against a real Kafka need."""

from collections.abc import Iterator
from itertools import count

import pytest

from tests.kafka.conftest import admin, bootstrap, limits, topic
from tests.support.fake_gcs import FakeGcs

pytest.register_assert_rewrite("flagstream.testing")

__all__ = ["admin", "bootstrap", "gcs", "gcs_bucket", "limits", "topic"]

_BUCKETS = count(1)


@pytest.fixture(scope="session")
def gcs() -> Iterator[FakeGcs]:
    """A fake-gcs-server of this run; fails on a machine without Go."""
    with FakeGcs() as server:
        yield server


@pytest.fixture
def gcs_bucket(gcs: FakeGcs) -> str:
    """Return a bucket of the test's own."""
    return gcs.create_bucket(f"bucket-{next(_BUCKETS)}")
