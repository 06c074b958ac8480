"""What an answer asks to wait: the header Retry-After (RFC 9110, 10.2.3)."""

from email.utils import parsedate_to_datetime

LONGEST_WAIT = 3600.0
"""Seconds; what is asked for beyond it (a Retry-After of a day, a wrong clock) is cut to it: one request an
hour is no burden for a server, and a wrong answer must not silence a worker for a day.
"""


def seconds_to_wait(retry_after: str | None, now: float) -> float | None:
    """The header's value as seconds from ``now`` (since 1970), at most LONGEST_WAIT.

    None, which leaves the wait to the engine's back-off, when it is absent, not understood, or over already:
    a wait of 0 would have the other side called again without a pause.
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
