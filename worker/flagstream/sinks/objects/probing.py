"""Objects that are stored only to find out what a store allows."""

import secrets
from collections.abc import Callable, Iterator

from flagstream.chunk import Partition
from flagstream.errors import FlagstreamError
from flagstream.outcomes import Proof
from flagstream.window import Manifest, OffsetRange

PROBES = ".flagstream-probe/"
"""The folder for such objects, below the prefix."""

MANIFEST = Manifest(
    range=OffsetRange(Partition("t" * 249, 2**31 - 1), 2**62, 2**63 - 1),
    records=2**31,
    digest="0123456789abcdef" * 4,
    config="0123456789abcdef",
    topic_id="AAAAAAAAAAAAAAAAAAAAAA",
    path='date=2026-11-29/flag=é"%2F\\',
)
"""The manifest of such an object: as long as a window's can be, in all characters that may occur. It reveals
a store that loses or changes metadata before the first window is delivered again.
"""

LIST = "list"
"""The attempt that can be made without an object."""

Attempt = tuple[str, Callable[[str], str]]
"""A thing to try, and the call that tries it on an object of the given name and returns the result as text.
The call raises FlagstreamError.
"""


def probe_name() -> str:
    """Return a name that nobody else uses."""
    return PROBES + secrets.token_hex(16)


def proofs(write: Attempt, *others: Attempt, names: Callable[[str], Iterator[str]]) -> Iterator[Proof]:
    """Make each attempt in turn on one object. If the object could not be written, only a listing can be
    tried: ``names`` lists the names that begin with a prefix.
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
