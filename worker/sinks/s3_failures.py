"""What an error of Amazon's client library means: who has to act, and what to tell them.

``botocore`` puts neither keys nor signatures into its messages.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    SSLError,
)
from botocore.exceptions import ConnectionError as NoConnection

from worker.errors import SinkError, SinkRefused, SinkUnavailable
from worker.sinks.retry_after import seconds_to_wait

_PASSING = {408, 409, 412, 429}
"""Answers below 500 that pass by themselves. 409 and 412 only get here without an object to explain them."""

_PASSING_CODES = {
    "BadDigest",  # damaged on the way
    "IncompleteBody",
    "NoSuchUpload",  # somebody else has finished or cleared it: the upload begins again
    "RequestTimeout",  # comes with status 400
    "RequestTimeTooSkewed",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
}

_MOVED = {301, 307, 308, 400}
"""Answers to a request that went to another region than the bucket's."""


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turns the library's errors into the SinkError that says who must act; ``what`` was being done."""
    try:
        yield
    except ClientError as error:
        raise _answered(error, what) from None
    except BotoCoreError as error:
        passing = isinstance(error, HTTPClientError | NoConnection | CredentialRetrievalError)
        # A certificate that is not trusted, as missing credentials, is for a person to mend.
        kind = SinkUnavailable if passing and not isinstance(error, SSLError) else SinkRefused
        raise kind(f"{what}: {error}") from None


def status(error: ClientError) -> int:
    """The answer's HTTP status; 0 when there was none."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def code(error: ClientError) -> str:
    """The store's own word for the error; for an answer without a body, the status."""
    return str(error.response.get("Error", {}).get("Code", ""))


def _answered(error: ClientError, what: str) -> SinkError:
    answered = status(error)
    detail = error.response.get("Error", {}).get("Message", "")
    text = f"{what}: {error.operation_name}: {answered} {code(error)}: {detail}"
    passing = answered in _PASSING or code(error) in _PASSING_CODES
    # 501: the store does not know what we need, and will not learn it by itself.
    if passing or not (300 <= answered < 500 or answered == 501):
        return SinkUnavailable(text, _retry_after(error))
    if answered in _MOVED and (region := _headers(error).get("x-amz-bucket-region")):
        text += f"; the bucket is in the region {region}"
    return SinkRefused(text)


def _headers(error: ClientError) -> dict[str, str]:
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    return {str(name).lower(): str(value) for name, value in headers.items()}


def _retry_after(error: ClientError) -> float | None:
    return seconds_to_wait(_headers(error).get("retry-after"), time.time())
