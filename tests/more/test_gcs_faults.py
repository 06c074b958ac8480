"""On fake-gcs-server every call to Google Cloud Storage fails in turn."""

from tests.contract.test_gcs_faults import *  # noqa: F403
