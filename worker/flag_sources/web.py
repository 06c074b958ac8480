"""One HTTP request for a document, with bounds on time and size."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

import httpx


@dataclass(frozen=True, slots=True)
class Answer:
    """A document as a server sent it, and what it wants to see when it is asked for it again."""

    content: bytes
    content_type: str
    validators: Mapping[str, str]


class WebClient:
    """Asks for one document, again and again. ``shown`` is its address without anything secret, for messages;
    ``timeout`` seconds bound the whole exchange from the first byte on and each wait in it, ``max_bytes`` the
    document.

    Redirects are not followed: headers meant for one server must not reach another. Connections are closed
    after each request: polls are far apart, and a kept one would be dead by the next.
    """

    def __init__(
        self, method: str, url: str, shown: str, headers: Mapping[str, str], timeout: float, max_bytes: int
    ) -> None:
        self._method = method
        self._url = url
        self._shown = shown
        self._headers = {"Accept-Encoding": "gzip", **headers}
        self._timeout = timeout
        self._max_bytes = max_bytes

    def ask(self, validators: Mapping[str, str], body: bytes | None = None) -> Answer | None:
        """The document; None if the one with these ``validators`` is still the current one (304). Raises
        OSError."""
        deadline = time.monotonic() + self._timeout
        try:
            with (
                httpx.Client(timeout=self._timeout, follow_redirects=False) as client,
                client.stream(
                    self._method, self._url, headers={**self._headers, **validators}, content=body
                ) as answer,
            ):
                if answer.status_code == httpx.codes.NOT_MODIFIED and validators:
                    return None
                if answer.status_code != httpx.codes.OK:
                    raise OSError(f"{self._shown}: answers {answer.status_code} {answer.reason_phrase}")
                return Answer(
                    self._content(answer, deadline),
                    answer.headers.get("Content-Type", ""),
                    _validators(answer.headers),
                )
        except httpx.TimeoutException as error:
            raise OSError(f"{self._shown}: no answer within {self._timeout:g} s") from error
        except (httpx.LocalProtocolError, UnicodeEncodeError):
            # The library's own text quotes the header, which may be a secret with a line break at its end.
            raise OSError(f"{self._shown}: a header holds characters that HTTP does not allow") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise OSError(f"{self._shown}: {type(error).__name__}: {error}") from None

    def _content(self, answer: httpx.Response, deadline: float) -> bytes:
        content = bytearray()
        for piece in answer.iter_bytes():
            content += piece
            if len(content) > self._max_bytes:
                raise OSError(f"{self._shown}: holds more than {self._max_bytes} bytes")
            if time.monotonic() > deadline:  # a byte now and then passes each single wait
                raise OSError(f"{self._shown}: not complete within {self._timeout:g} s")
        return bytes(content)


def _validators(headers: httpx.Headers) -> dict[str, str]:
    pairs = (("If-None-Match", "ETag"), ("If-Modified-Since", "Last-Modified"))
    return {ask: headers[name] for ask, name in pairs if name in headers}
