"""Flags from a GO Feature Flag relay, as its in-process providers read them: POST /v1/flag/configuration."""

import json
from collections.abc import Mapping

import msgspec

from worker.config.flags import RelayFlagSettings
from worker.flag_sources.document import Document
from worker.flag_sources.web import WebClient
from worker.flags import FlagFileError

PATH = "/v1/flag/configuration"


class _Configuration(msgspec.Struct):
    flags: msgspec.Raw


class RelayPlace:
    """A `Place` on a relay. With several flag sets in the relay the key chooses the set."""

    def __init__(self, settings: RelayFlagSettings) -> None:
        self._shown = settings.place()
        headers = {"Content-Type": "application/json"}
        if settings.api_key is not None:
            headers["X-API-Key"] = settings.api_key.get_secret_value()
        url = settings.url.get_secret_value().rstrip("/") + PATH
        self._client = WebClient("POST", url, self._shown, headers, settings.timeout, settings.max_bytes)
        self._body = json.dumps({"flags": settings.flags}).encode()
        self._validators: Mapping[str, str] = {}

    def fetch(self, *, anew: bool) -> Document | None:
        answer = self._client.ask({} if anew else self._validators, self._body)
        if answer is None:
            return None
        try:
            # raw: a number stays the text that it is
            flags = bytes(msgspec.json.decode(answer.content, type=_Configuration).flags)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise FlagFileError(f"{self._shown}: no answer of a relay: {error}") from None
        self._validators = answer.validators
        return Document(flags, "json")
