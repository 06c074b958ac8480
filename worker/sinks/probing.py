"""Objects that only prove what a store of objects allows."""

import secrets
from collections.abc import Callable, Iterator

from worker.errors import FlagstreamError
from worker.sinks.protocol import Proof

PROBES = ".flagstream-probe/"
"""Where, below the prefix, such objects are written."""

Attempt = tuple[str, Callable[[str], str]]
"""What is tried, and the call that tries it on an object of that name and says what came of it. Raises
FlagstreamError.
"""


def probe_name() -> str:
    """A name that nobody else uses."""
    return PROBES + secrets.token_hex(16)


def proofs(write: Attempt, *others: Attempt) -> Iterator[Proof]:
    """Each attempt in turn on one object; nothing else can be told when there is none to try it on."""
    name = probe_name()
    written = False
    for what, attempt in (write, *others):
        if what != write[0] and not written:
            yield Proof(what, "unproved", "there is no object to try it on")
            continue
        try:
            yield Proof(what, "proved", attempt(name))
            written = True
        except FlagstreamError as error:
            yield Proof(what, "failed", str(error))
