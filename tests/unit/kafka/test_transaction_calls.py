"""Calls that may never return."""

import threading

import pytest

from flagstream.kafka.transaction_calls import Hangs, bounded


def test_a_call_that_never_returns_is_given_up() -> None:
    """The caller goes on; the call keeps its thread, which ends with the process."""
    never = threading.Event()

    with pytest.raises(Hangs):
        bounded(never.wait, step=0.001)

    never.set()


def test_a_call_that_returns_late_is_waited_for() -> None:
    """Steps are waited for one by one, so a few that pass in vain are no end."""
    order: list[str] = []
    let_go = threading.Event()

    def late() -> None:
        let_go.wait()
        order.append("returned")

    threading.Timer(0.05, let_go.set).start()
    bounded(late, step=1.0)

    assert order == ["returned"]


def test_what_a_call_raises_reaches_the_caller() -> None:
    """The thread in between hides nothing."""

    def fails() -> None:
        raise LookupError("why")

    with pytest.raises(LookupError, match="why"):
        bounded(fails)
