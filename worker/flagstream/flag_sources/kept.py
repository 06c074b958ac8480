"""A location whose last flags are kept."""

import time
from collections.abc import Callable
from datetime import UTC, datetime

from flagstream.flag_sources import FlagLocation, NotNow
from flagstream.flag_sources.document import Document
from flagstream.flags import FlagFileError, FlagSet, parse_flags


def utc_now() -> datetime:
    """Return the time, with its zone."""
    return datetime.now(UTC)


class KeptFlags:
    """Implements `FlagSource` for one location.

    ``clock`` gives the time, with its zone; ``monotonic`` gives seconds. Scheduled steps of the last flags
    come due even while the location does not answer or holds something broken. Any error that the location
    raises counts as its failure.
    """

    def __init__(
        self,
        name: str,
        place: FlagLocation,
        clock: Callable[[], datetime] = utc_now,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._place = place
        self._clock = clock
        self._monotonic = monotonic
        self._left_alone: tuple[float, str] | None = None  # until when, and why
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
            self._found = self._fetch(unconditional=True)
            assert self._found is not None  # unconditional
            return self._parse(self._found)
        except Exception as error:
            failure = self._failure(error)
            self._problem = str(failure)
            raise failure from None

    def poll(self) -> FlagSet | None:
        try:
            document = self._fetch(unconditional=self._found is None)
            if document is None:  # the one that was found last: what failed in between may be over
                document = self._found
            if document is not None and (self._problem is not None or document != self._found):
                self._found = document
                return self._parse(document)
        except Exception as error:
            failure = self._failure(error)
            if str(failure) != self._problem:
                self._problem = str(failure)
                raise failure from None
        if self._good is not None and self._next_change and self._next_change <= self._clock():
            return self._build(self._good)
        return None

    def restore(self, document: Document) -> FlagSet:
        try:
            flags = self._build(document)
        except Exception as error:
            raise FlagFileError(str(self._failure(error))) from None
        self._good = document
        return flags

    def _fetch(self, *, unconditional: bool) -> Document | None:
        if self._left_alone is not None:
            until, why = self._left_alone
            if (left := until - self._monotonic()) > 0:
                raise NotNow(why, left)
            self._left_alone = None
        try:
            return self._place.fetch(unconditional=unconditional)
        except NotNow as error:
            self._left_alone = (self._monotonic() + error.seconds, str(error))
            raise

    def _failure(self, error: Exception) -> OSError | FlagFileError:
        """Return ``error``, or one in its place that does not quote a library: a library may quote a
        secret.
        """
        if isinstance(error, OSError | FlagFileError):
            return error
        return OSError(f"{self.name}: cannot be read: {type(error).__name__}")

    def _parse(self, document: Document) -> FlagSet:
        flags = self._build(document)
        self._good, self._problem = document, None
        return flags

    def _build(self, document: Document) -> FlagSet:
        try:
            flags = parse_flags(document.content, document.format, self._clock())
        except FlagFileError as error:
            how = f" (read as {document.format} {document.decided_by})" if document.decided_by else ""
            raise FlagFileError(f"{self.name}: {error}{how}") from error
        self._next_change = flags.next_change
        return flags
