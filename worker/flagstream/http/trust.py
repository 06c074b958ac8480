"""Reads the certificates that the worker trusts."""

import os
import ssl
import threading

import httpcore2

from flagstream.http.failures import HttpRefused, reason


class Trust:
    """The certificates of the system, or those that SSL_CERT_FILE or SSL_CERT_DIR name.

    They are read before the first TLS connection, and again after a connection whose certificate was not
    trusted: an agent may have replaced the files. Several threads use them at once.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._context: ssl.SSLContext | None = None

    def context(self) -> ssl.SSLContext:
        """Return a context with these certificates. Raises HttpRefused if the files cannot be used."""
        with self._lock:
            if self._context is None:
                self._context = _read()
            return self._context

    def doubted(self) -> None:
        """Read the files again before the next connection."""
        with self._lock:
            self._context = None


def _read() -> ssl.SSLContext:
    named = next((name for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if os.environ.get(name)), None)
    what = f"the certificates that {named} names" if named else "the system's certificates"
    try:
        context = httpcore2.default_ssl_context()
    except OSError as error:  # also an SSLError, for a file without a certificate
        raise HttpRefused(f"{what} cannot be read: {reason(error)}") from None
    context.set_alpn_protocols(["http/1.1"])
    return context
