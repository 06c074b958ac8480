"""What an error of Google's client library means: who has to act, and what to tell them.

The address of a resumable upload lets its holder write, so neither it nor a request's address is ever shown.
"""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

import requests
from google.api_core.exceptions import GoogleAPICallError
from google.auth.exceptions import GoogleAuthError, RefreshError, TransportError

from worker.errors import SinkError, SinkRefused, SinkUnavailable
from worker.sinks.retry_after import seconds_to_wait

_PASSING = {408, 409, 412, 429}
"""Answers below 500 that a retry mends. 412 only gets here without an object that could explain it."""
_SESSION_LOST = {404, 410}
"""Answers to a piece of a resumable upload whose session has ended: the upload has to begin again."""
_LIMITED = {"rateLimitExceeded", "userRateLimitExceeded"}
"""Reasons of a 403 that ask to slow down and do not refuse."""
_UPLOAD_ID = re.compile(r"upload_id=[^&\s'\")]*")


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turns the library's errors into the SinkError that says who must act; ``what`` was being done."""
    try:
        yield
    except (GoogleAPICallError, requests.RequestException) as error:
        raise _failure(error, what) from None
    except GoogleAuthError as error:
        raise _not_authorized(error, what) from None


def _failure(error: Exception, what: str) -> SinkError:
    response = getattr(error, "response", None)
    if response is None:
        return SinkUnavailable(f"{what}: {_redacted(str(error))}")
    return _answered(response, what)


def _answered(response: requests.Response, what: str) -> SinkError:
    status = response.status_code
    reasons, message = _explained(response)
    text = f"{what}: {status} {_redacted(message)}"
    lost = status in _SESSION_LOST and response.request.method == "PUT"
    limited = status == 403 and bool(reasons & _LIMITED)
    if not 400 <= status < 500 or status in _PASSING or lost or limited:
        return SinkUnavailable(text, _retry_after(response))
    return SinkRefused(text)


def _not_authorized(error: GoogleAuthError, what: str) -> SinkError:
    text = f"{what}: no credentials: {_redacted(str(error))}"
    if isinstance(error, TransportError) or (isinstance(error, RefreshError) and error.retryable):
        return SinkUnavailable(text)
    return SinkRefused(text)


def _explained(response: requests.Response) -> tuple[set[str], str]:
    """The machine words and the text in an answer's body, where it has the form of Google's errors."""
    try:
        error = response.json()["error"]
        return {str(one.get("reason")) for one in error.get("errors", ())}, str(error["message"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return set(), response.reason or ""


def _retry_after(response: requests.Response) -> float | None:
    return seconds_to_wait(response.headers.get("Retry-After"), time.time())


def _redacted(text: str) -> str:
    return _UPLOAD_ID.sub("upload_id=…", text)
