"""When a denial becomes a refusal."""

from flagstream.chunk import Partition
from flagstream.export.denials import FORGOTTEN_SECONDS, Denials

ONE, OTHER = Partition("evaluations", 0), Partition("evaluations", 1)


def test_it_has_to_last() -> None:
    """The first never counts; a later one does once the time has passed, and so do those after it."""
    denials = Denials(300.0)
    assert [denials.counts(ONE, now) for now in (0.0, 10.0, 299.0, 300.0, 301.0)] == [False] * 3 + [True] * 2


def test_each_partition_has_its_own_time() -> None:
    """One that is denied later waits as long."""
    denials = Denials(300.0)
    denials.counts(ONE, 0.0)
    assert not denials.counts(OTHER, 300.0)
    assert denials.counts(ONE, 300.0)


def test_a_success_ends_it() -> None:
    """What is denied after the sink took something begins again."""
    denials = Denials(300.0)
    denials.counts(ONE, 0.0)
    denials.over(ONE)
    assert not denials.counts(ONE, 400.0)


def test_nobody_knows_what_was_in_a_long_silence() -> None:
    """A denial long after the last one begins again."""
    denials = Denials(300.0)
    denials.counts(ONE, 0.0)
    assert not denials.counts(ONE, 301.0 + FORGOTTEN_SECONDS)
