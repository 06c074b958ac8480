"""The contract of the Google Cloud Storage sink holds on fake-gcs-server."""

from tests.contract.test_gcs import *  # noqa: F403
