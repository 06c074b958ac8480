"""Gives an answer, and its body with bounds on size."""

import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, suppress

import httpcore2

from flagstream.http.failures import HttpUnavailable, TooLarge
from flagstream.http.network import Exchange

Translated = Callable[[], AbstractContextManager[None]]


class Response:
    """Holds the head of an answer. The body can be read while the request's context lasts."""

    def __init__(
        self, response: httpcore2.Response, exchange: Exchange, translated: Translated, *, repeated: bool
    ) -> None:
        self.status = response.status
        self.fresh = exchange.connected
        """Whether its connection was made for this request, to an address that was looked up for it."""
        self.repeated = repeated
        """Whether the request was sent before over a kept connection, which ended without an answer."""
        self._response = response
        self._translated = translated

    def header(self, name: str) -> str | None:
        """Return the value of the first header of this name."""
        wanted = name.lower().encode()
        for key, value in self._response.headers:
            if key.lower() == wanted:
                return value.decode("latin-1")
        return None

    def read(self, most: int) -> bytes:
        """Return the body, decompressed if it is gzip. Raises HttpUnavailable if it is broken, late, or
        compressed in another way, and TooLarge if it has more than ``most`` bytes.
        """
        coding = (self.header("Content-Encoding") or "identity").strip().lower()
        if coding not in ("identity", "gzip", "x-gzip"):
            raise HttpUnavailable("the answer is compressed in a way that was not asked for")
        content = bytearray()
        with self._translated():
            pieces = self._response.iter_stream()
            for piece in pieces if coding == "identity" else _unzipped(pieces, most):
                content += piece
                if len(content) > most:
                    raise TooLarge(f"holds more than {most} bytes")
        return bytes(content)

    def skip(self, most: int) -> None:
        """Read a short body to its end, so that the connection can be used again. A body that is longer than
        ``most`` bytes, broken or late costs the connection, not the answer.
        """
        size = 0
        with suppress(Exception):
            for piece in self._response.iter_stream():
                size += len(piece)
                if size > most:
                    return


def _unzipped(pieces: Iterable[bytes], most: int) -> Iterator[bytes]:
    """Decompress gzip, a little more than ``most`` bytes at a time: a small answer may hold a huge
    document.
    """
    member = zlib.decompressobj(wbits=31)
    begun = False
    try:
        for piece in pieces:
            left = piece
            while left:
                if member.eof:  # gzip may consist of several members
                    member = zlib.decompressobj(wbits=31)
                begun = True
                yield member.decompress(left, most + 1)
                left = member.unconsumed_tail or member.unused_data
    except zlib.error:
        raise HttpUnavailable("the answer is not valid gzip") from None
    if begun and not member.eof:
        raise HttpUnavailable("the answer breaks off within its gzip")
