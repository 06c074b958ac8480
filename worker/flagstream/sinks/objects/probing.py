"""Objects that only prove what a store of objects allows."""

import secrets
from collections.abc import Callable, Iterator

from flagstream.chunk import Partition
from flagstream.errors import FlagstreamError
from flagstream.outcomes import Proof
from flagstream.window import Manifest, OffsetRange

PROBES = ".flagstream-probe/"
"""Where, below the prefix, such objects are written."""

MANIFEST = Manifest(
    range=OffsetRange(Partition("t" * 249, 2**31 - 1), 2**62, 2**63 - 1),
    records=2**31,
    digest="0123456789abcdef" * 4,
    config="0123456789abcdef",
    topic_id="AAAAAAAAAAAAAAAAAAAAAA",
    path='date=2026-11-29/flag=é"%2F\\',
)
"""What such an object says of itself: as much as a window's can, in all characters that may occur. A store
that loses or changes metadata is found out by it, and not at the first window that is delivered again.
"""

LIST = "list"
"""The attempt that can be made without an object."""

Attempt = tuple[str, Callable[[str], str]]
"""What is tried, and the call that tries it on an object of that name and says what came of it. Raises
FlagstreamError.
"""


def probe_name() -> str:
    """A name that nobody else uses."""
    return PROBES + secrets.token_hex(16)


def proofs(write: Attempt, *others: Attempt, names: Callable[[str], Iterator[str]]) -> Iterator[Proof]:
    """Each attempt in turn on one object. Where there is none to try it on, only a listing can be tried:
    ``names`` lists those that begin with a prefix.
    """
    name = probe_name()

    def list_nothing(prefix: str) -> str:
        next(names(prefix), None)
        return "a listing is allowed; whether it shows what was written is not known"

    written = False
    for what, attempt in (write, *others):
        tried = attempt if written or what == write[0] else list_nothing if what == LIST else None
        if tried is None:
            yield Proof(what, "unproved", "there is no object to try it on")
            continue
        try:
            yield Proof(what, "proved", tried(name))
            written = written or what == write[0]
        except FlagstreamError as error:
            yield Proof(what, "failed", str(error))
