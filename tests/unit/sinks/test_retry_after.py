"""What a server asks to wait."""

from email.utils import formatdate

import pytest

from flagstream.sinks.retry_after import LONGEST_WAIT, seconds_to_wait

NOW = 1_795_000_000.0


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("7", 7.0),
        (" 7 ", 7.0),
        ("0", None),
        ("-1", None),
        ("soon", None),
        ("1.5", None),
        ("99999999", LONGEST_WAIT),
        ("9" * 400, LONGEST_WAIT),
        ("9" * 5000, None),
        (formatdate(NOW + 90, usegmt=True), 90.0),
        (formatdate(NOW - 90, usegmt=True), None),
        (formatdate(NOW + 10**8, usegmt=True), LONGEST_WAIT),
    ],
)
def test_retry_after(header: str | None, seconds: float | None) -> None:
    """Seconds or a date, cut to an hour; what is not understood or over leaves it to the back-off."""
    assert seconds_to_wait(header, NOW) == seconds
