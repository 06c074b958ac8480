"""Events whose times cannot be right are seen, named and forgotten again."""

import pytest
from structlog.testing import capture_logs

from flagstream.enrich.clocks import AHEAD_SECONDS, REMIND_SECONDS, EventClocks

NOW = 1_800_000_000


class Rig:
    """A look at events with clocks that are moved."""

    def __init__(self) -> None:
        self.at = 0.0
        self.clocks = EventClocks(lambda: self.at, lambda: NOW + self.at)

    def look(self, *dates: object) -> list[str]:
        """Return the texts of the problems after a look at events with these dates."""
        self.clocks.look("raw-0@7", [b'{"creationDate":%s}' % str(date).encode() for date in dates])
        return [problem.text for problem in self.clocks.problems()]


@pytest.mark.parametrize(
    "date",
    [
        NOW,
        NOW + AHEAD_SECONDS - 1,
        NOW - 10**8,
        NOW * 1000,
        NOW * 10**6,
        0,
        1,
        f"{NOW}.5",
        f"{NOW // 10**8}e8",
    ],
)
def test_times_that_can_be_right(date: object) -> None:
    """Also old ones, which waited somewhere, and those in finer units."""
    assert Rig().look(date) == []


@pytest.mark.parametrize(
    "date",
    [
        NOW + AHEAD_SECONDS + 60,
        (NOW + 10**7) * 1000,
        10**8,
        -(10**6),
        10**30,
        "1e300",
        -62_135_596_801,
        -(10**14),
        -(2**63),
        "-1e300",
        "-" + "9" * 300,
    ],
)
def test_times_that_cannot(date: object) -> None:
    """In the future, in whatever unit, of a clock that was never set, or before all calendars: whatever an
    event says, it ends no worker.
    """
    rig = Rig()

    with capture_logs() as lines:
        [text] = rig.look(NOW, date)

    assert "raw-0@7" in text
    assert "set the clock of the application" in text
    assert [line["event"] for line in lines] == ["event_clock"]


def test_it_is_told_once_a_minute_and_ends_with_the_last() -> None:
    """A million such events are not a million lines."""
    rig = Rig()
    with capture_logs() as lines:
        for _ in range(61):
            assert rig.look(10**8)
            rig.at += 1
    assert len(lines) == 2
    rig.at += REMIND_SECONDS
    assert rig.look(NOW) == []


@pytest.mark.parametrize(
    "value", [None, b"", b"[]", b"not json", b'{"creationDate":"x"}', b'{"creationDate":true}']
)
def test_what_is_no_event_has_no_time(value: bytes | None) -> None:
    """Others say what is wrong with it."""
    clocks = EventClocks()
    clocks.look("raw-0@7", [value])

    assert list(clocks.problems()) == []
