"""Objects that only prove what a store of objects allows."""

import secrets
from collections.abc import Callable, Iterator

from worker.errors import FlagstreamError
from worker.sinks.protocol import Proof

PROBES = ".flagstream-probe/"
"""Where, below the prefix, such objects are written."""

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
