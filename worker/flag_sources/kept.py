"""A place whose last flags are kept."""

from collections.abc import Callable
from datetime import UTC, datetime

from worker.flag_sources import Place
from worker.flag_sources.document import Document
from worker.flags import FlagFileError, FlagSet, parse_flags


def utc_now() -> datetime:
    """The time, with its zone."""
    return datetime.now(UTC)


class KeptFlags:
    """A `FlagSource` on one place.

    ``clock`` gives the time, with its zone. Scheduled steps come due also while the place does not answer or
    holds something broken, in the flags last read from it.
    """

    def __init__(self, name: str, place: Place, clock: Callable[[], datetime] = utc_now) -> None:
        self.name = name
        self._place = place
        self._clock = clock
        self._found: Document | None = None  # what was read last
        self._good: Document | None = None  # the last that was flags
        self._problem: str | None = None
        self._next_change: datetime | None = None

    @property
    def problem(self) -> str | None:
        return self._problem

    @property
    def good(self) -> Document | None:
        return self._good

    def load(self) -> FlagSet:
        try:
            self._found = None
            self._found = self._place.fetch(anew=True)
            assert self._found is not None  # anew
            return self._parse(self._found)
        except (OSError, FlagFileError) as error:
            self._problem = str(error)
            raise

    def poll(self) -> FlagSet | None:
        try:
            document = self._place.fetch(anew=self._found is None)
            if document is None:  # the one that was found last: what failed in between may be over
                document = self._found
            if document is not None and (self._problem is not None or document != self._found):
                self._found = document
                return self._parse(document)
        except (OSError, FlagFileError) as error:
            if str(error) != self._problem:
                self._problem = str(error)
                raise
        if self._good is not None and self._next_change and self._next_change <= self._clock():
            return self._build(self._good)
        return None

    def restore(self, document: Document) -> FlagSet:
        flags = self._build(document)
        self._good = document
        return flags

    def _parse(self, document: Document) -> FlagSet:
        flags = self._build(document)
        self._good, self._problem = document, None
        return flags

    def _build(self, document: Document) -> FlagSet:
        try:
            flags = parse_flags(document.content, document.format, self._clock())
        except FlagFileError as error:
            told = f" (read as {document.format} {document.told_by})" if document.told_by else ""
            raise FlagFileError(f"{self.name}: {error}{told}") from error
        self._next_change = flags.next_change
        return flags
