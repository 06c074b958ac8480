"""Dead letters: records that cannot be processed, kept as they were, with the reason in their headers."""

from dataclasses import dataclass, replace
from typing import Any, cast

from flagstream import __version__
from flagstream.chunk import Headers, Partition, Record
from flagstream.record_limits import ENVELOPE

PREFIX = "flagstream-"
REASONS = (
    "empty",
    "foreign",
    "invalid_avro",
    "invalid_headers",
    "invalid_json",
    "line_break",
    "missing_field",
    "name_too_long",
    "no_path",
    "no_place_in_template",
    "not_an_event",
    "not_an_object",
    "out_of_range",
    "refused",
    "refused_by_topic",
    "tombstone",
    "too_deep",
    "too_large",
    "unknown_schema",
    "wrong_type",
)
"""All reasons: metrics have a series for each from the start."""
ERROR_LIMIT = 1_000
"""Characters of the error text that are kept."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Holds a record for the dead-letter topic. ``place`` is its origin: ``topic-partition@offset``."""

    key: bytes | None
    value: bytes | None
    headers: Headers
    reason: str
    place: str


def headers_of(record: Record) -> Headers | None:
    """Return the record's headers; None if one has a name that is not UTF-8: Kafka accepts such a name, but
    our client cannot return it.
    """
    try:
        return record.headers() or []
    except SystemError:  # confluent-kafka raises it after Python has refused the name
        forget_headers(record)
        return None


def forget_headers(record: Record) -> None:
    """Drop the headers of a record whose headers could not be read: a second attempt would return a null
    pointer for the name, which nobody may touch.
    """
    cast(Any, record).set_headers([])  # only confluent-kafka's records do that


def dead_letter(
    partition: Partition, record: Record, *, stage: str, reason: str, error: str, limit: int
) -> DeadLetter:
    """Return the dead letter of ``record``: original key, value and headers, plus ``flagstream-*`` headers.
    Headers that cannot be read are left out.

    ``limit`` is the largest record that the dead-letter topic takes, in bytes. One that does not fit is cut:
    first the value, with its full size in ``flagstream-truncated-from``; if headers and key alone are too
    large, those too.
    """
    offset, (_, timestamp) = record.offset(), record.timestamp()
    added = {
        "stage": stage,
        "topic": partition.topic,
        "partition": str(partition.index),
        "offset": str(offset),
        "timestamp": str(timestamp),
        "reason": reason,
        "error": error[:ERROR_LIMIT],
        "version": __version__,
    }
    ours: Headers = [(PREFIX + name, text.encode(errors="replace")) for name, text in added.items()]
    headers = [*(headers_of(record) or []), *ours]
    return fit(DeadLetter(record.key(), record.value(), headers, reason, f"{partition}@{offset}"), limit)


def fit(letter: DeadLetter, limit: int) -> DeadLetter:
    """Return ``letter``, cut to ``limit`` bytes if it is larger."""
    room = limit - ENVELOPE
    if size(letter.key, letter.value, letter.headers) <= room:
        return letter
    key, value = letter.key, letter.value or b""
    headers = [*letter.headers, (PREFIX + "truncated-from", str(len(value)).encode())]
    if size(key, None, headers) > room // 2:
        headers = [header for header in headers if header[0].startswith(PREFIX)]
    if size(key, None, headers) > room:
        key = (key or b"")[: room // 2]
    return replace(letter, key=key, value=value[: max(0, room - size(key, None, headers))], headers=headers)


def size(key: bytes | None, value: bytes | None, headers: Headers) -> int:
    """Return the bytes that a record takes in Kafka, the framing of each header included."""
    total = len(key or b"") + len(value or b"")
    for name, content in headers:
        total += len(name.encode()) + len(content or b"") + 10
    return total
