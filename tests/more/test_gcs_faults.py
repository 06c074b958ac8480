"""Google Cloud Storage with every call failing in turn, on fake-gcs-server."""

from tests.contract.test_gcs_faults import *  # noqa: F403
