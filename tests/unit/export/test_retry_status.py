"""What people read about calls of a sink that fail."""

import pytest

from flagstream.chunk import Partition
from flagstream.export.retry_status import RetryStatus, span
from flagstream.operate.health import Problem

THREE, FOUR = Partition("evaluations", 3), Partition("evaluations", 4)


def test_a_line_says_what_fails_since_when_and_when_it_is_tried_again() -> None:
    """The age is that of the first failure, the rest that of the last."""
    failing = RetryStatus()
    failing.failed("deliver", THREE, "sink_refused", "refused: no permission", 1_000.0, 1.0)
    failing.failed("deliver", THREE, "sink_unavailable", "unavailable: busy", 1_090.0, 60.0)

    assert list(failing.problems(1_100.0)) == [
        Problem(
            "sink_unavailable",
            "deliver evaluations-3: unavailable: busy (for 100 s, next try in 50 s); "
            "look whether the sink is up and has room; it is tried again by itself",
            "evaluations-3",
        )
    ]
    [problem] = failing.problems(1_150.0)
    assert problem.text.startswith("deliver evaluations-3: unavailable: busy (for 2 min, being tried); look")


def test_each_call_fails_for_itself() -> None:
    """The success of one partition says nothing of another."""
    failing = RetryStatus()
    failing.failed("deliver", THREE, "sink_refused", "refused: no", 0.0, 1.0)
    failing.failed("holdings", FOUR, "sink_refused", "refused: no", 0.0, 1.0)

    assert failing.over("deliver", THREE)
    assert not failing.over("deliver", THREE)
    assert [problem.partition for problem in failing.problems(0.0)] == ["evaluations-4"]
    failing.failed("deliver", THREE, "sink_refused", "refused: no", 50.0, 1.0)
    assert "(for 0 s, next try in 1 s)" in list(failing.problems(50.0))[1].text


def test_a_partition_that_is_let_go_of_fails_no_more() -> None:
    """Whatever was tried for it; others, and what is tried for all of them, stay."""
    failing = RetryStatus()
    for what, partition in (("deliver", THREE), ("adopt", THREE), ("open", None)):
        failing.failed(what, partition, "sink_refused", "refused: no", 0.0, 1.0)

    failing.forget(THREE)

    assert [problem.text.partition(": ")[0] for problem in failing.problems(0.0)] == ["open"]


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.4, "0 s"), (119, "119 s"), (120, "2 min"), (7_200, "2 h"), (360_000, "100 h")]
)
def test_spans_are_short(seconds: float, shown: str) -> None:
    """One number, as exact as anybody needs it."""
    assert span(seconds) == shown
