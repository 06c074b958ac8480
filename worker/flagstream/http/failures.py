"""What a request can end in instead of an answer, named by who has to act.

The texts are the worker's own. A library's text may quote a header, an address with its password or what
the other side sent, which may be the request with its secrets, so none of it is handed on.
"""

import os
import socket
import ssl
from http import HTTPStatus

from flagstream.errors import FlagstreamError


class HttpError(FlagstreamError):
    """There is no answer to a request. The message is fit for a log. ``sent``: some of the request was sent,
    so it may have arrived.
    """

    sent = False


class HttpUnavailable(HttpError):
    """It passes by itself: a name that does not resolve, no connection, no answer in time, a broken one."""


class HttpRefused(HttpError):
    """A person must act: a certificate that nobody vouches for, an address that is not allowed, a header that
    cannot be sent, a proxy that cannot be used.
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
    """Return the standard's words for a status, after a space: the other side's own may quote a secret."""
    try:
        return f" {HTTPStatus(status).phrase}"
    except ValueError:
        return ""
