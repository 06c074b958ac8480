"""How long an answer asks us to wait: the header Retry-After (RFC 9110, 10.2.3)."""

from email.utils import parsedate_to_datetime

LONGEST_WAIT = 3600.0
"""Seconds. A longer wait (a Retry-After of a day, a wrong clock) is cut to this: one request an hour does not
burden a server, and a wrong answer must not silence a worker for a day.
"""


def seconds_to_wait(retry_after: str | None, now: float) -> float | None:
    """Return the header's value as seconds from ``now`` (since 1970), at most LONGEST_WAIT.

    Return None, which leaves the wait to the engine's back-off, if the header is absent, not understood, or
    already over: with a wait of 0 the engine would call the other side again without a pause.
    """
    if retry_after is None:
        return None
    try:
        seconds = int(text) if (text := retry_after.strip()).isdecimal() else _until(text, now)
    except (ValueError, TypeError):
        return None
    return float(min(seconds, LONGEST_WAIT)) if seconds > 0 else None


def _until(date: str, now: float) -> float:
    return parsedate_to_datetime(date).timestamp() - now
