"""The settings of a webhook sink."""

import re
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from flagstream.http import address
from flagstream.sinks.retry_after import LONGEST_WAIT
from flagstream.sinks.settings import SinkSettings
from flagstream.sinks.webhook.signing import key_of
from flagstream.units import Bytes, Count, Seconds, Written, wrong

_OURS = {
    "content-type",
    "content-encoding",
    "content-length",
    "transfer-encoding",
    "host",
    "connection",
    "webhook-id",
    "webhook-timestamp",
    "webhook-signature",
    "x-hub-signature-256",
}
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, token
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\xa0-\xff]*")
_UNFIT_FOR_URL = re.compile(r"[\x00-\x20\x7f<>]")


def _listed(value: object) -> object:
    """Accept one text in place of a list of one."""
    if isinstance(value, str) and re.fullmatch(r'\s*\[\s*".*"\s*\]\s*', value, re.DOTALL):
        raise wrong(
            "is a list written as one text; a variable holds one text, and the file a list of several"
        )
    if isinstance(value, str | SecretStr):
        return [value]
    if not isinstance(value, list):
        raise wrong("is not a text; write a text or a list of texts")
    return value


def _checked_url(url: SecretStr) -> SecretStr:
    text = url.get_secret_value()
    if _UNFIT_FOR_URL.search(text) or not address.is_address(text) or "%" in address.parse(text).host:
        raise wrong("is not the address of a webhook; write https://HOST/PATH")
    return url


def _checked_headers(headers: dict[str, Any]) -> dict[str, Any]:
    for name, values in headers.items():
        if not _HEADER_NAME.fullmatch(name):
            raise wrong("holds a name that HTTP headers cannot have; write letters, digits and -")
        if name.lower() in _OURS:
            raise wrong(f"cannot hold {name}: this header is set by the sink")
        if not all(_HEADER_VALUE.fullmatch(value.get_secret_value()) for value in values):
            raise wrong(f"{name} has a value with characters that headers cannot hold")
    return headers


def _checked_secret(secret: SecretStr | None) -> SecretStr | None:
    if secret is None:
        return None
    try:
        key_of(secret.get_secret_value())
    except ValueError as error:
        raise wrong(str(error)) from None
    if not secret.get_secret_value():
        raise wrong("is empty; leave it out for requests without a signature")
    return secret


def _is_private(host: str) -> bool:
    """Return whether ``host`` is private by itself. Other names are judged by their addresses, when they are
    resolved.
    """
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return not ip_address(host).is_global
    except ValueError:
        return False


class WebhookSettings(SinkSettings):
    """Settings of a webhook sink."""

    type: Literal["webhook"] = Field(default="webhook", description="HTTP requests to a receiver.")
    endpoint_url: Annotated[SecretStr, AfterValidator(_checked_url), Written("secret", str)] = Field(
        description=(
            "Where requests go. Only scheme, host and port are ever shown: the rest is often a secret."
        )
    )
    secret: Annotated[SecretStr | None, AfterValidator(_checked_secret)] = Field(
        default=None,
        description=(
            "Key of both signatures, X-Hub-Signature-256 and webhook-signature; absent: none. For the "
            "latter, a secret that begins with whsec_ continues in base64."
        ),
    )
    previous_secrets: Annotated[
        list[Annotated[SecretStr, AfterValidator(_checked_secret)]],
        BeforeValidator(_listed),
        Written("secret or list of secrets", lambda _: "[]"),
    ] = Field(
        default_factory=list,
        description=(
            "While receivers change over to a new secret: the ones before it, each a further signature in "
            "webhook-signature."
        ),
    )
    meta: Annotated[dict[str, str], Written("table of texts", lambda _: "{}")] = Field(
        default_factory=dict,
        description="Member meta of the body; hostname is added with the worker's unless it is set here.",
    )
    headers: Annotated[
        dict[str, Annotated[list[SecretStr], BeforeValidator(_listed)]],
        AfterValidator(_checked_headers),
        Written("table of secrets or lists of secrets", lambda _: "{}"),
    ] = Field(default_factory=dict, description="Sent with each request, such as Authorization. Never shown.")
    max_part_events: Count = Field(
        default=10_000, gt=0, description="A request holds at most this many events; a window is split."
    )
    max_part_bytes: Bytes = Field(
        default=960 * 1024,
        gt=0,
        description=(
            "A request's events take at most this many bytes, before compression; the default stays below "
            "the 1 MiB that nginx takes by default. A larger event becomes a dead letter."
        ),
    )
    compression: Literal["none", "gzip"] = Field(
        default="none",
        description="gzip sends Content-Encoding: gzip; signatures stay those of the uncompressed body.",
    )
    event_ids: bool = Field(
        default=False,
        description="Each event gets an id, topic-partition-offset, unless it brings one.",
    )
    connect_timeout: Seconds = Field(
        default=5.0,
        gt=0,
        description=(
            "How long making a connection may take, with TLS and over all addresses of the host: the next "
            "one is tried while the one before is still waited for."
        ),
    )
    timeout: Seconds = Field(
        default=10.0,
        gt=0,
        le=300,
        description=(
            "How long the request and its answer may take once the connection is there; GO Feature Flag's "
            "figure."
        ),
    )
    allow_private_addresses: bool = Field(
        default=False,
        description=(
            "Whether the receiver may be at an address outside the public Internet: private, loopback, "
            "link-local. Otherwise it is refused, at every connection: who can write the URL or answer for "
            "its name must not reach inner services."
        ),
    )
    breaker_failures: Count = Field(
        default=5,
        gt=0,
        description="After this many failures in a row, over all partitions, the receiver is left alone.",
    )
    breaker_pause: Seconds = Field(
        default=30.0, gt=0, le=LONGEST_WAIT, description="For how long; then one request tries."
    )

    def problems(self) -> Iterator[tuple[str, str]]:
        yield from super().problems()
        host = address.parse(self.endpoint_url.get_secret_value()).host
        if not self.allow_private_addresses and _is_private(host):
            yield (
                "endpoint_url",
                "is at an address outside the public Internet, which is refused at every connection; set "
                "allow_private_addresses = true if that is meant",
            )
        if self.previous_secrets and self.secret is None:
            yield "previous_secrets", "needs secret, the one that is in use now"
