"""The errors that a request can end in, named by who has to act.

All texts are the worker's own. A library's text may quote a header, an address with its password, or the
other side's answer, which may hold the request with its secrets. So no such text is passed on.
"""

import os
import socket
import ssl
from http import HTTPStatus

from flagstream.errors import FlagstreamError


class HttpError(FlagstreamError):
    """A request has no answer. The message is fit for a log. ``sent``: part of the request was sent, so it
    may have arrived.
    """

    sent = False


class HttpUnavailable(HttpError):
    """A failure that passes by itself: an unknown name, no connection, no answer in time, a broken answer."""


class HttpRefused(HttpError):
    """A failure that a person must mend: a certificate that is not trusted, an address that is not allowed, a
    header that cannot be sent, a proxy that cannot be used.
    """


class TooLarge(HttpError):
    """The body is larger than the caller takes."""


def reason(error: OSError) -> str:
    """Return the system's words for ``error``, without addresses and file names."""
    if isinstance(error, ssl.SSLError):
        return (error.reason or "TLS failed").replace("_", " ").lower()
    if isinstance(error, socket.gaierror):
        return error.strerror or "the name is not known"
    return os.strerror(error.errno) if error.errno else type(error).__name__


def phrase(status: int) -> str:
    """Return the standard's phrase for a status, after a space. The other side's own phrase may quote a
    secret.
    """
    try:
        return f" {HTTPStatus(status).phrase}"
    except ValueError:
        return ""
