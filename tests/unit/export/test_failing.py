"""What people read about calls of a sink that fail."""

import pytest

from worker.export.failing import Failing, span


def test_a_line_says_what_fails_since_when_and_when_it_is_tried_again() -> None:
    """The age is that of the first failure, the rest that of the last."""
    failing = Failing()
    failing.failed("deliver evaluations-3", "refused: no permission", 1_000.0, 1.0)
    failing.failed("deliver evaluations-3", "unavailable: busy", 1_090.0, 60.0)

    assert list(failing.shown(1_100.0)) == [
        "deliver evaluations-3: unavailable: busy (for 100 s, next try in 50 s)"
    ]
    assert list(failing.shown(1_150.0)) == [
        "deliver evaluations-3: unavailable: busy (for 2 min, being tried)"
    ]


def test_each_call_fails_for_itself() -> None:
    """The success of one partition says nothing of another."""
    failing = Failing()
    failing.failed("deliver evaluations-3", "refused: no", 0.0, 1.0)
    failing.failed("holdings evaluations-4", "refused: no", 0.0, 1.0)

    assert failing.over("deliver evaluations-3")
    assert not failing.over("deliver evaluations-3")
    assert [line.partition(": ")[0] for line in failing.shown(0.0)] == ["holdings evaluations-4"]
    failing.failed("deliver evaluations-3", "refused: no", 50.0, 1.0)
    assert "(for 0 s, next try in 1 s)" in list(failing.shown(50.0))[1]


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.4, "0 s"), (119, "119 s"), (120, "2 min"), (7_200, "2 h"), (360_000, "100 h")]
)
def test_spans_are_short(seconds: float, shown: str) -> None:
    """One number, as exact as anybody needs it."""
    assert span(seconds) == shown
