"""Reads flags from an HTTP(S) address, and asks for them with ETag and Last-Modified."""

from collections.abc import Mapping
from urllib.parse import urlsplit

from flagstream.config.flags import HttpFlagSettings
from flagstream.flag_sources.document import Document, format_of
from flagstream.flag_sources.web import WebClient


class HttpLocation:
    """Implements `FlagLocation` for one address."""

    def __init__(self, settings: HttpFlagSettings) -> None:
        url = settings.url.get_secret_value()
        headers = {name: value.get_secret_value() for name, value in settings.headers.items()}
        self._client = WebClient("GET", url, settings.place(), headers, settings.timeout, settings.max_bytes)
        self._path = urlsplit(url).path
        self._format = settings.format
        self._validators: Mapping[str, str] = {}

    def fetch(self, *, unconditional: bool) -> Document | None:
        answer = self._client.ask({} if unconditional else self._validators)
        if answer is None:
            return None
        self._validators = answer.validators
        return Document(answer.content, *format_of(self._format, answer.content_type, self._path))
