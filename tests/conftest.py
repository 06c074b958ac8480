"""What every test can rely on."""

import os

import pytest


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings in a developer's environment (FLAGSTREAM_…) reach no test."""
    for name in list(os.environ):
        if name.startswith("FLAGSTREAM_") and name != "FLAGSTREAM_TEST_BROKER":
            monkeypatch.delenv(name)
