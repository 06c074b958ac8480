"""What every test can rely on."""

import os

import pytest
from hypothesis import HealthCheck, settings

# `make unit` tries the same examples each time; `make chaos` searches and keeps what it finds in .hypothesis.
settings.register_profile("unit", max_examples=100, derandomize=True, deadline=None)
settings.register_profile(
    "chaos",
    max_examples=2_000,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "unit"))


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings in a developer's environment (FLAGSTREAM_…) reach no test."""
    for name in list(os.environ):
        if name.startswith("FLAGSTREAM_") and name != "FLAGSTREAM_TEST_BROKER":
            monkeypatch.delenv(name)
