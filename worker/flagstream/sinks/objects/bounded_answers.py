"""A bound on answers in memory: a server at a store's address may be something else, and may send without
end.
"""

from collections.abc import Iterable

from flagstream.errors import SinkUnavailable

LARGEST = 32 * 1024 * 1024
"""Bytes. The largest that a store sends, a listing of a thousand objects, takes some 5 MB."""


class AnswerTooLarge(SinkUnavailable):
    """The answer is larger than any that a store gives."""

    def __init__(self) -> None:
        super().__init__(
            f"the answer is larger than {LARGEST // 1024**2} MiB, and no answer of a store is: look at what "
            "answers at the endpoint"
        )


def whole(parts: Iterable[bytes]) -> bytes:
    """Join the parts of an answer. Raises AnswerTooLarge as soon as they are more than ``LARGEST``."""
    taken: list[bytes] = []
    size = 0
    for part in parts:
        size += len(part)
        if size > LARGEST:
            raise AnswerTooLarge
        taken.append(part)
    return b"".join(taken)
