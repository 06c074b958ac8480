"""How large a record may be: what topics take, and what is kept free around a record."""

import re
from collections.abc import Mapping

ENVELOPE = 512
"""Bytes kept free for the batch around a record and for its framing: 61 and some 20 in Kafka's format v2."""
DEFAULT_LIMIT = 1_000_000
"""Bytes of the largest record while the topic's own limit is unknown: librdkafka's message.max.bytes, a
little below the 1,048,588 bytes that a broker's topic takes by default.
"""
SMALLEST_LIMIT = 2_000
"""No topic is taken to hold less; below it, dead letters would lose their headers."""
LARGEST_LIMIT = 1_000_000_000
"""The most that librdkafka's message.max.bytes takes; max.message.bytes of a topic goes up to 2^31 - 1."""
MAX_BYTES = "max.message.bytes"
_NUMBER = re.compile(r"-?[0-9]{1,19}")


def number(config: Mapping[str, str], name: str) -> int | None:
    """Return the number that the broker reports for the topic setting ``name``; None if it reports none."""
    text = config.get(name, "")
    return int(text) if _NUMBER.fullmatch(text) else None


def reported_limit(config: Mapping[str, str]) -> int | None:
    """Return the largest record in bytes that our producers may send to a topic with the settings ``config``.

    None if the broker does not report the limit (a gateway, a service that speaks Kafka's protocol): the
    caller then takes DEFAULT_LIMIT and says so in the log.
    """
    reported = number(config, MAX_BYTES)
    return None if reported is None else min(reported, LARGEST_LIMIT)


def too_small(config: Mapping[str, str]) -> str | None:
    """Return why nothing can be produced to a topic with the settings ``config``; None if it can."""
    reported = number(config, MAX_BYTES)
    if reported is None or reported >= SMALLEST_LIMIT:
        return None
    return (
        f"takes records of at most {reported} bytes ({MAX_BYTES}={reported}), too few for a dead letter with "
        f"its headers; set {MAX_BYTES} to {SMALLEST_LIMIT} or more (Kafka's default is 1048588)"
    )
