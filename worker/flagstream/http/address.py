"""An HTTP address, taken apart as a client needs it."""

import re
from base64 import b64encode
from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import quote, unquote, urlsplit

_PORTS: Final = {"http": 80, "https": 443}
_PATH_SAFE: Final = "/%:@!$&'()*+,;="
_QUERY_SAFE: Final = _PATH_SAFE + "?"
_UNFIT: Final = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Address:
    """``host`` is ASCII and without brackets; ``target`` is path and query as a request names them."""

    scheme: Literal["http", "https"]
    host: str
    port: int
    target: str = field(repr=False)
    authorization: str | None = field(repr=False)
    """The value of the header Authorization for ``user:password@``, as browsers and Go's client send it."""
    default_port: bool

    @property
    def authority(self) -> str:
        """Return host and port as the header ``Host`` and messages name them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.default_port else f"{host}:{self.port}"

    @property
    def shown(self) -> str:
        """Return scheme, host and port. User, path and query are left out: they often hold a secret."""
        return f"{self.scheme}://{self.authority}"


def parse(text: str) -> Address:
    """Take ``text`` apart. Raises ValueError for anything but an HTTP address; the message does not quote
    it.
    """
    if _UNFIT.search(text):
        raise ValueError("holds control characters")
    try:
        parts = urlsplit(text)
        host, port = _ascii(parts.hostname or ""), parts.port
    except ValueError:
        raise ValueError("is not an address") from None
    scheme: Literal["http", "https"]
    if parts.scheme == "http":
        scheme = "http"
    elif parts.scheme == "https":
        scheme = "https"
    else:
        raise ValueError("does not begin with http:// or https://")
    if "@" in parts.fragment:  # what was meant as user and password would be taken for the host, and shown
        raise ValueError("holds # before @; write %23 for # in a password")
    if not host or port == 0:
        raise ValueError("has no host, or a port that cannot be")
    target = quote(parts.path or "/", safe=_PATH_SAFE)
    if parts.query:
        target += "?" + quote(parts.query, safe=_QUERY_SAFE)
    default = port is None or port == _PORTS[scheme]
    userinfo = parts.netloc.rpartition("@")[0]
    return Address(scheme, host, port or _PORTS[scheme], target, _basic(userinfo), default)


def is_address(text: str) -> bool:
    """Return whether ``text`` is an HTTP address that :func:`parse` understands."""
    try:
        parse(text)
    except ValueError:
        return False
    return True


def basic(user: str, password: str) -> str:
    """Return the value of ``Authorization`` for basic authentication."""
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()


def _basic(userinfo: str) -> str | None:
    if not userinfo:
        return None
    user, _, password = userinfo.partition(":")
    return basic(unquote(user), unquote(password))


def _ascii(host: str) -> str:
    if host.isascii():
        return host
    import idna  # its tables are large, and few need them

    try:
        return idna.encode(host, uts46=True).decode()
    except idna.IDNAError:
        raise ValueError("the host's name is not allowed") from None
