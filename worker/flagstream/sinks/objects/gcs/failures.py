"""What an error of Google's client library means: who has to act, and the text for them.

No text of the library or of a server is passed on: it may quote a header, an address (that of a resumable
upload lets its holder write), a variable of the environment or a part of a key. What is said is said in words
of our own, by the error's code or class.
"""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

import requests
from google.api_core.exceptions import GoogleAPIError
from google.auth.exceptions import (
    DefaultCredentialsError,
    GoogleAuthError,
    OAuthError,
    RefreshError,
    TransportError,
)

from flagstream.errors import FlagstreamError, SinkError, SinkRefused, SinkUnavailable
from flagstream.sinks.retry_after import seconds_to_wait

_PASSING = {307, 408, 409, 412, 425, 429}
"""Answers below 500 that a retry mends. A 412 gets here only without an object that could explain it."""
_SESSION_LOST = {404, 410}
"""Answers to a piece of a resumable upload whose session has ended: the upload has to begin again."""
_PASSING_REASONS = {
    "backendError",
    "internalError",
    "quotaExceeded",
    "rateLimitExceeded",
    "resumableUploadDoesNotSupportRetry",
    "userRateLimitExceeded",
}
"""Reasons that ask to slow down or to come again, with whatever status."""
_ABOUT_CONTENT = {"uploadTooLarge", "metadataTooLarge", "wrongContentLength"}
"""Reasons that judge the content, not who sends it where; so does status 413."""

_WORDS = {
    400: "the store does not accept the request",
    401: "the store does not accept the credentials",
    403: "the credentials have no right to this",
    404: "the bucket or the object does not exist",
    413: "the object is too large",
    429: "the store asks to slow down",
}
_MALFORMED = (
    "a credential, an address or a proxy is malformed, often by a line break at its end; flagstream config "
    "check names a variable that is"
)
_TOKEN_PASSES = {"internal_failure", "server_error", "temporarily_unavailable", "slow_down"}
"""Codes of a token service (RFC 6749, 4.1.2.1) that pass by themselves."""

_REASON = re.compile(r"[A-Za-z]{3,40}")
_PERMISSION = re.compile(r"\b(?:storage|iam|serviceusage|resourcemanager|cloudkms)\.[A-Za-z]+\.[A-Za-z]+\b")
_STATUS = re.compile(r"(?:[Ss]tatus|['\"]code['\"])\W{1,4}(\d{3})\b")
"""In what the library writes about an answer of a metadata or token service: its status."""
_OAUTH_CODE = re.compile(r"Error code ([a-z_]+)|^([a-z_]+): ")
_BROKEN_OFF = re.compile(r"EOF|reset|timed out|closed", re.IGNORECASE)
"""In the text of a TLS error: the connection was cut, and no certificate was judged."""


@contextmanager
def translated(what: str, *, preparing: bool = False) -> Iterator[None]:
    """Turn any error into the SinkError that says who must act; ``what`` says what was being done.

    ``preparing``: the store was not asked yet, so an unforeseen error comes from settings, files or
    variables for credentials, which people mend.
    """
    try:
        yield
    except FlagstreamError:
        raise
    except GoogleAuthError as error:
        raise _not_authorized(error, what) from None
    except (GoogleAPIError, requests.RequestException) as error:
        raise _failure(error, what) from None
    except Exception as error:
        raise _unforeseen(error, what, preparing) from None


def _failure(error: Exception, what: str) -> SinkError:
    response = getattr(error, "response", None)
    if response is not None:
        return _answered(response, what)
    return _unanswered(error, what)


def _answered(response: requests.Response, what: str) -> SinkError:
    status = response.status_code
    reasons, message = _explained(response)
    text = f"{what}: {status}"
    if shown := sorted(reason for reason in reasons if _REASON.fullmatch(reason)):
        text += f" {' '.join(shown)}"
    if words := _WORDS.get(status):
        text += f": {words}"
    if permission := _PERMISSION.search(message):
        text += f" ({permission[0]})"
    lost = status in _SESSION_LOST and response.request.method == "PUT"
    if not 400 <= status < 500 or status in _PASSING or lost or reasons & _PASSING_REASONS:
        return SinkUnavailable(text, _retry_after(response))
    return SinkRefused(text, denied=not (status == 413 or reasons & _ABOUT_CONTENT))


def _unanswered(error: BaseException, what: str) -> SinkError:
    """Return the error for a request without an answer."""
    if isinstance(error, requests.exceptions.SSLError):
        if _BROKEN_OFF.search(str(error)):
            return SinkUnavailable(f"{what}: the connection broke while TLS was agreed on")
        return _refused(what, "TLS fails: the certificate is not trusted, or not for this name", error)
    if isinstance(error, ValueError):  # a malformed header, address or proxy, or an answer that is not JSON
        if isinstance(error, requests.exceptions.JSONDecodeError):
            return SinkUnavailable(f"{what}: no answer that can be understood")
        return _refused(what, _MALFORMED, error)
    if isinstance(error, requests.exceptions.ProxyError):
        return SinkUnavailable(f"{what}: no connection to the proxy")
    if isinstance(error, requests.Timeout):
        return SinkUnavailable(f"{what}: no answer within timeout")
    if isinstance(error, requests.ConnectionError):
        return SinkUnavailable(f"{what}: no connection, or it broke")
    return SinkUnavailable(f"{what}: no answer that can be understood ({type(error).__name__})")


def _not_authorized(error: GoogleAuthError, what: str) -> SinkError:
    text = f"{what}: no credentials"
    if isinstance(error, DefaultCredentialsError):
        return SinkRefused(f"{text}: none were found, or their file cannot be used", denied=True)
    if getattr(error, "retryable", False):
        return SinkUnavailable(f"{text}: the service for tokens is busy")
    reason = error.__cause__ if isinstance(error, RefreshError) else error
    if isinstance(reason, TransportError) and isinstance(reason.__cause__, requests.RequestException):
        return _unanswered(reason.__cause__, text)
    said = " ".join(map(str, error.args))
    status = _status(reason) or int(found[1] if (found := _STATUS.search(said)) else 0)
    if status:
        words = f"{text}: the service for tokens answers {status}"
        if status >= 500 or status in _PASSING:
            return SinkUnavailable(words)
        return SinkRefused(words, denied=True)
    named = _OAUTH_CODE.search(said)
    code = (named[1] or named[2]) if named else ""
    # A token service that refuses says so with a code; a page of something in between has none.
    silent = isinstance(reason, TransportError) or (isinstance(error, OAuthError) and not code)
    if silent or code in _TOKEN_PASSES:
        return SinkUnavailable(f"{text}: the service for tokens does not answer as one")
    return SinkRefused(f"{text}: they cannot be used, or are refused ({type(error).__name__})", denied=True)


def _status(error: BaseException | None) -> int:
    """Of the answer that the library keeps beside its text; 0 if there is none."""
    return next((int(kept.status) for kept in getattr(error, "args", ()) if hasattr(kept, "status")), 0)


def _unforeseen(error: Exception, what: str, preparing: bool) -> SinkError:
    """Return the error for an error that is not one of the library's own."""
    if isinstance(error, OSError) and error.errno is None and not preparing:
        # requests checks REQUESTS_CA_BUNDLE and quotes it
        return _refused(what, "the file with certificates cannot be used", error)
    if isinstance(error, ValueError):
        return _refused(what, _MALFORMED, error)
    if preparing or isinstance(error, RuntimeError | FileNotFoundError | PermissionError):
        return _refused(what, "the client cannot be used as it is configured", error)
    return SinkUnavailable(f"{what}: no answer that can be understood ({type(error).__name__})")


def _refused(what: str, words: str, error: BaseException) -> SinkRefused:
    return SinkRefused(f"{what}: {words} ({type(error).__name__})", denied=True)


def _explained(response: requests.Response) -> tuple[set[str], str]:
    """The machine words and the text in an answer's body, where it has the form of Google's errors."""
    try:
        error = response.json()["error"]
        return {str(one.get("reason")) for one in error.get("errors", ())}, str(error["message"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return set(), ""


def _retry_after(response: requests.Response) -> float | None:
    return seconds_to_wait(response.headers.get("Retry-After"), time.time())
