"""Asserts in the contract suite are told in full, as those in test files are."""

import pytest

pytest.register_assert_rewrite("worker.testing")
