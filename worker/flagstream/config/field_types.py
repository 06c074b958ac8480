"""The types of settings that have a rule of their own: names, addresses, numbers of copies, metadata."""

import math
import re
from collections.abc import Callable
from ipaddress import IPv6Address
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator

from flagstream.http import address
from flagstream.units import Count, Written, shown, wrong


def _named(what: str, pattern: str, right: str) -> Callable[[str], str]:
    def check(name: str) -> str:
        if not re.fullmatch(pattern, name):
            raise wrong(f"{shown(name)} is not {what}; use {right}")
        return name

    return check


def _not_the_stage(name: str) -> str:
    if name == "enrich":
        raise wrong(
            '"enrich" is what metrics, pages and the log call the enrich stage; give the sink another name'
        )
    return name


def _registry_url(url: str) -> str:
    if re.search(r"/(subjects|schemas)(/|$)", url.partition("?")[0]):
        raise wrong("is a place inside the registry; write its address without /subjects and so on")
    plain = re.fullmatch(r"https?://[^/@\s]+(/[^\s?#]*)?", url) is not None
    if url and not (plain and address.is_address(url)):  # not shown: it may hold a password
        raise wrong("is not an address; write https://HOST/PATH, and user and password apart")
    return url


def _web_host(host: str) -> str:
    label = r"[A-Za-z0-9_-]{1,63}"  # of a name; with a longer or an empty one nothing can be asked for it
    if host != "*" and not re.fullmatch(
        rf"{label}(\.{label})*\.?|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(%\w+)?", host
    ):
        raise wrong(
            f'{shown(host)} is not an address; write "127.0.0.1", "::1" or "*", and the port in web.port'
        )
    if ":" in host and not _is_ipv6(host):
        raise wrong(f"{shown(host)} is not an address; write the host alone, and the port in web.port")
    return host


def _is_ipv6(host: str) -> bool:
    try:
        IPv6Address(host)
    except ValueError:
        return False
    return True


def _copies(count: int) -> int:
    if count == 0:
        raise wrong("0 is out of range; write at least 1, or -1 for the broker's default")
    return count


def _scalar(value: object) -> object:
    if not isinstance(value, str | int | float) or (isinstance(value, float) and not math.isfinite(value)):
        raise wrong(f"{shown(value)} cannot be metadata; write a text, a number, true or false")
    return value


_LETTERS = 'letters, digits, ".", "_" and "-"'
Name = Annotated[str, AfterValidator(_named("a name", r"[A-Za-z0-9._-]{1,100}", f"up to 100 {_LETTERS}"))]
Instance = Annotated[
    str, AfterValidator(_named("an instance name", r"[A-Za-z0-9._-]{0,100}", f"up to 100 {_LETTERS}"))
]
SinkName = Annotated[
    str,
    AfterValidator(
        _named("a sink name", r"[a-z0-9][a-z0-9_-]{0,62}", 'up to 63 lower-case letters, digits, "_" and "-"')
    ),
    AfterValidator(_not_the_stage),
]
WebHost = Annotated[str, AfterValidator(_web_host)]
Copies = Annotated[Count, AfterValidator(_copies)]
RegistryUrl = Annotated[str, AfterValidator(_registry_url)]
Metadata = Annotated[
    dict[str, Annotated[bool | int | float | str, BeforeValidator(_scalar)]],
    Written("table", str),
]
