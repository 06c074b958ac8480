"""Whose certificates are believed."""

import os
import ssl
import threading

import httpcore2

from flagstream.http.failures import HttpRefused, reason


class Trust:
    """The certificates of the system, or those that SSL_CERT_FILE or SSL_CERT_DIR name.

    They are read at the first connection by TLS, and again after one whose certificate was not believed: an
    agent may have replaced the files. Used by several threads at once.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._context: ssl.SSLContext | None = None

    def context(self) -> ssl.SSLContext:
        """Raises HttpRefused where the files cannot be used."""
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
