"""A schema registry with Confluent's interface, as far as the worker needs it.

Source: the reference of Confluent's Schema Registry; tried with Apicurio's ``/apis/ccompat/v7``. All calls
block, from several threads at once.
"""

import json
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final, Literal
from urllib.parse import urlencode

from flagstream.config.settings import RegistrySettings
from flagstream.errors import FlagstreamError
from flagstream.http.address import basic, parse
from flagstream.http.failures import HttpError, HttpUnavailable, phrase
from flagstream.sinks.retry_after import seconds_to_wait

SCHEMA_MISSING = (40401, 40402, 40403)
"""The error codes for: no such subject, no such version, no such schema."""
_JSON = "application/vnd.schemaregistry.v1+json"
_LATER = (408, 425, 429)
_MAX_ANSWER: Final = 16 << 20
"""Bytes of an answer; schemas are a few kilobytes."""
_MAX_SAID: Final = 500
"""Characters of the registry's own explanation that are passed on."""


class RegistryError(FlagstreamError):
    """The registry did not answer a request as it should; try again later.

    ``kind``: "unavailable" passes by itself; "refused" (credentials, a wrong address, an incompatible schema)
    lasts until a person acts.
    """

    def __init__(self, kind: Literal["refused", "unavailable"], message: str) -> None:
        self.kind = kind
        super().__init__(message)


class SchemaMissing(FlagstreamError):
    """The registry answered that it has no such schema."""


class SchemaRegistry:
    """A client; ``settings.url`` is that of Confluent's interface.

    If a registry asks to wait (``Retry-After``), it gets no request for so long: all calls fail with its
    answer. ``clock`` gives monotonic seconds.
    """

    def __init__(self, settings: RegistrySettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._left_alone: tuple[float, str] | None = None  # until when, and why
        address = parse(settings.url)
        password = settings.password.get_secret_value()
        self._headers = [
            ("Accept", f"{_JSON}, application/json"),
            ("Accept-Encoding", "gzip"),
            ("Content-Type", _JSON),
            ("User-Agent", "flagstream"),
        ]
        authorization = basic(settings.user, password) if settings.user else address.authorization
        if authorization is not None:
            self._headers.append(("Authorization", authorization))
        self._secrets = [one for one in (password, (authorization or "").removeprefix("Basic ")) if one]
        self._base = address.target.rstrip("/")
        self._url = address.shown + self._base
        from flagstream.http.client import HttpClient  # only where there is a registry

        self._http = HttpClient(address, connect_timeout=settings.timeout, timeout=settings.timeout)

    @property
    def shown(self) -> str:
        """Return the address, without user and password."""
        return self._url

    def schema(self, number: int) -> str:
        """Return the text of the Avro schema with this id. Raises SchemaMissing and RegistryError."""
        answer = self._call("GET", f"schemas/ids/{number}")
        kind = answer.get("schemaType") or "AVRO"
        if kind != "AVRO":
            raise SchemaMissing(f"schema {number} is not Avro but {str(kind)[:20]}")
        text = answer.get("schema")
        if not isinstance(text, str):
            raise RegistryError("refused", f"{self._url} answered schema {number} without a schema")
        if answer.get("references"):
            raise SchemaMissing(f"schema {number} refers to other schemas, which is not supported")
        return text

    def find(self, subject: str, schema: str) -> int:
        """Return the id of ``schema`` under ``subject``. Raises SchemaMissing and RegistryError."""
        return self._number(self._call("POST", f"subjects/{subject}", schema, normalize="true"))

    def register(self, subject: str, schema: str) -> int:
        """Add ``schema`` to ``subject`` if it is not there, and return its id. Raises RegistryError,
        "refused" if the subject's rules of compatibility do not allow the schema.
        """
        return self._number(self._call("POST", f"subjects/{subject}/versions", schema, normalize="true"))

    def compatible(self, subject: str, schema: str) -> bool:
        """Return whether the subject's rules allow ``schema`` as the next version. Raises RegistryError."""
        try:
            answer = self._call("POST", f"compatibility/subjects/{subject}/versions/latest", schema)
        except SchemaMissing:
            return True  # the first version of a subject goes with anything
        return answer.get("is_compatible") is True

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def _call(self, method: str, path: str, schema: str | None = None, **parameters: str) -> dict[str, Any]:
        if (left := self._left_alone) is not None and self._clock() < left[0]:
            raise RegistryError("unavailable", left[1])
        body = None if schema is None else json.dumps({"schema": schema}).encode()
        target = f"{self._base}/{path}" + (f"?{urlencode(parameters)}" if parameters else "")
        status, retry_after, fresh, answer = self._ask(method, target, body)
        if not fresh and 300 <= status <= 499 and status not in _LATER:
            # An answer that ends a call, or makes dead letters, may come from a host that no longer is the
            # registry.
            status, retry_after, _, answer = self._ask(method, target, body, fresh=True)
        if 200 <= status <= 299 and answer is not None:
            return answer
        message = f"{self._url} answered {status}{phrase(status)} to {method} {path}"
        if said := self._said(answer or {}):
            message += f": {said}"
        if status == HTTPStatus.NOT_FOUND and (answer or {}).get("error_code") in SCHEMA_MISSING:
            raise SchemaMissing(message)
        later = status >= 500 or status in _LATER
        if later and (wait := seconds_to_wait(retry_after, time.time())) is not None:
            message += f", and asks to wait {wait:.0f} s"
            self._left_alone = (self._clock() + wait, message)
        raise RegistryError("unavailable" if later else "refused", message)

    def _ask(
        self, method: str, target: str, body: bytes | None, *, fresh: bool = False
    ) -> tuple[int, str | None, bool, dict[str, Any] | None]:
        """Return status, Retry-After, whether the connection was new, and the answer if it is a JSON
        object.
        """
        try:
            with self._http.request(method, target, self._headers, body, fresh=fresh) as response:
                answer = _object(response.read(_MAX_ANSWER))
                return response.status, response.header("Retry-After"), response.fresh, answer
        except HttpError as error:
            text = f"{self._url} does not answer: {error}; look whether it is up, and at registry.url"
            passes = isinstance(error, HttpUnavailable)
            raise RegistryError("unavailable" if passes else "refused", text) from None

    def _number(self, answer: dict[str, Any]) -> int:
        """Return the id in an answer; what is not a registry may answer 200 as well."""
        number = answer.get("id")
        if type(number) is not int or not 0 <= number < 1 << 31:
            raise RegistryError("refused", f"{self._url} answered without the id of a schema")
        return number

    def _said(self, answer: dict[str, Any]) -> str:
        """Return the registry's explanation, in one line and without our credentials, which it may quote."""
        said = " ".join(str(answer.get("message") or "").split())
        for secret in self._secrets:
            said = said.replace(secret, "…")
        return said[:_MAX_SAID]


def _object(content: bytes) -> dict[str, Any] | None:
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return answer if isinstance(answer, dict) else None
