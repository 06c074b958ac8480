"""A schema registry with Confluent's interface, as far as the worker needs it.

Source: the reference of Confluent's Schema Registry; tried with Apicurio's ``/apis/ccompat/v7``. All calls
block, from several threads at once.
"""

from typing import Any, Literal

import httpx

from worker.config.settings import RegistrySettings
from worker.errors import FlagstreamError

SCHEMA_MISSING = (40401, 40402, 40403)
"""The error codes for: no such subject, no such version, no such schema."""
_JSON = "application/vnd.schemaregistry.v1+json"
_LATER = (408, 425, 429)


class RegistryError(FlagstreamError):
    """The registry did not do what it was asked; try again later.

    ``kind``: "unavailable" passes by itself; "refused" (credentials, a wrong address, an incompatible schema)
    lasts until a person acts.
    """

    def __init__(self, kind: Literal["refused", "unavailable"], message: str) -> None:
        self.kind = kind
        super().__init__(message)


class SchemaMissing(FlagstreamError):
    """The registry answered, and has no such schema."""


class SchemaRegistry:
    """A client; ``settings.url`` is that of Confluent's interface."""

    def __init__(self, settings: RegistrySettings) -> None:
        password = settings.password.get_secret_value()
        self._http = httpx.Client(
            base_url=settings.url,
            auth=(settings.user, password) if settings.user else None,
            timeout=settings.timeout,
            headers={"Accept": f"{_JSON}, application/json", "Content-Type": _JSON},
        )
        self._url = settings.url

    def schema(self, number: int) -> str:
        """The text of the Avro schema with this id. Raises SchemaMissing and RegistryError."""
        answer = self._call("GET", f"schemas/ids/{number}")
        kind = answer.get("schemaType") or "AVRO"
        if kind != "AVRO":
            raise SchemaMissing(f"schema {number} is not Avro but {kind}")
        if "schema" not in answer:
            raise RegistryError("refused", f"{self._url} answered schema {number} without a schema")
        if answer.get("references"):
            raise SchemaMissing(f"schema {number} refers to other schemas, which is not supported")
        return str(answer["schema"])

    def find(self, subject: str, schema: str) -> int:
        """The id of ``schema`` under ``subject``. Raises SchemaMissing and RegistryError."""
        answer = self._call("POST", f"subjects/{subject}", schema, normalize="true")
        return int(answer["id"])

    def register(self, subject: str, schema: str) -> int:
        """Add ``schema`` to ``subject`` if it is not there; its id. Raises RegistryError: "refused" where the
        subject's rules of compatibility do not allow it.
        """
        answer = self._call("POST", f"subjects/{subject}/versions", schema, normalize="true")
        return int(answer["id"])

    def compatible(self, subject: str, schema: str) -> bool:
        """Whether the subject's rules allow ``schema`` as the next version. Raises RegistryError."""
        try:
            answer = self._call("POST", f"compatibility/subjects/{subject}/versions/latest", schema)
        except SchemaMissing:
            return True  # the first version of a subject goes with anything
        return bool(answer["is_compatible"])

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def _call(self, method: str, path: str, schema: str | None = None, **parameters: str) -> dict[str, Any]:
        body = None if schema is None else {"schema": schema}
        try:
            response = self._http.request(method, path, json=body, params=parameters)
        except httpx.HTTPError as error:
            raise RegistryError(
                "unavailable", f"{self._url} does not answer: {type(error).__name__}: {error}"
            ) from error
        answer = _object(response)
        if response.is_success and answer is not None:
            return answer
        said = (answer or {}).get("message") or response.text[:200].strip() or response.reason_phrase
        message = f"{self._url} answered {response.status_code} to {method} {path}: {said}"
        if response.status_code == 404 and (answer or {}).get("error_code") in SCHEMA_MISSING:
            raise SchemaMissing(message)
        later = response.status_code >= 500 or response.status_code in _LATER
        raise RegistryError("unavailable" if later else "refused", message)


def _object(response: httpx.Response) -> dict[str, Any] | None:
    try:
        answer = response.json()
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None
