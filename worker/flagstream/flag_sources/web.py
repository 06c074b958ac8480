"""Makes one HTTP request for a document, with bounds on time and size."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

from flagstream.flag_sources import NotNow
from flagstream.http.address import parse
from flagstream.http.client import UNSENDABLE, HttpClient
from flagstream.http.failures import HttpError, phrase
from flagstream.http.response import Response
from flagstream.sinks.retry_after import seconds_to_wait


@dataclass(frozen=True, slots=True)
class WebDocument:
    """A document as a server sent it, with the headers to send when it is asked for it again."""

    content: bytes
    content_type: str
    validators: Mapping[str, str]


class WebClient:
    """Asks for one document, again and again. ``shown`` is its address without anything secret, for messages.
    ``timeout`` seconds bound making a connection, and the exchange after that; ``max_bytes`` bounds the
    document.

    Redirects are not followed: headers meant for one server must not reach another. Connections are closed
    after each request: polls are far apart, and a kept one would be dead by the next.
    """

    def __init__(
        self, method: str, url: str, shown: str, headers: Mapping[str, str], timeout: float, max_bytes: int
    ) -> None:
        address = parse(url)
        self._method = method
        self._target = address.target
        self._shown = shown
        self._headers = {"Accept": "*/*", "Accept-Encoding": "gzip", "User-Agent": "flagstream"}
        given = {name.title() for name in headers}
        self._headers = {name: value for name, value in self._headers.items() if name not in given} | dict(
            headers
        )
        self._max_bytes = max_bytes
        self._http = HttpClient(address, connect_timeout=timeout, timeout=timeout, keep=False)

    def ask(self, validators: Mapping[str, str], body: bytes | None = None) -> WebDocument | None:
        """Return the document; None if the one with these ``validators`` is still the current one (304).
        Raises OSError.
        """
        headers = list({**self._headers, **validators}.items())
        if not all(value.isascii() for _, value in headers):  # servers differ in how they read other letters
            raise OSError(f"{self._shown}: {UNSENDABLE}")
        try:
            with self._http.request(self._method, self._target, headers, body) as answer:
                if answer.status == HTTPStatus.NOT_MODIFIED and validators:
                    return None
                if answer.status != HTTPStatus.OK:
                    raise self._refused(answer)
                validators = {
                    ask: value
                    for ask, name in (("If-None-Match", "ETag"), ("If-Modified-Since", "Last-Modified"))
                    if (value := answer.header(name)) is not None
                }
                content = answer.read(self._max_bytes)
                return WebDocument(content, answer.header("Content-Type") or "", validators)
        except HttpError as error:
            raise OSError(f"{self._shown}: {error}") from None

    def _refused(self, answer: Response) -> OSError:
        text = f"{self._shown}: answers {answer.status}{phrase(answer.status)}"
        wait = seconds_to_wait(answer.header("Retry-After"), time.time())
        return OSError(text) if wait is None else NotNow(f"{text}, and asks to wait {wait:.0f} s", wait)
