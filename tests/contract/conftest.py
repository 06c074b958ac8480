"""Starts the servers that sinks are tried on, and lets pytest explain asserts of the contract suite in
full."""

from collections.abc import Iterator
from itertools import count

import pytest

from tests.support.seaweed import SeaweedFs
from tests.support.small_gcs import SmallGcs

pytest.register_assert_rewrite("flagstream.testing")

_BUCKETS = count(1)


@pytest.fixture(scope="session")
def gcs() -> Iterator[SmallGcs]:
    """Start a Google Cloud Storage for this run; `make test-more` has another."""
    with SmallGcs() as server:
        yield server


@pytest.fixture
def gcs_bucket(gcs: SmallGcs) -> str:
    """Return a bucket of the test's own."""
    return gcs.create_bucket(f"bucket-{next(_BUCKETS)}")


@pytest.fixture(scope="session")
def seaweed() -> Iterator[SeaweedFs]:
    """Start an S3 server for this run."""
    with SeaweedFs() as server:
        yield server
