"""The proxy that the environment names for an address: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY."""

from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

from flagstream.http.address import Address, parse
from flagstream.http.failures import HttpRefused


def proxy_for(address: Address) -> Address | None:
    """Return the proxy that requests to ``address`` go through, None if they go straight.

    Raises HttpRefused for one that cannot be used; the message names the variable and does not quote it.
    """
    proxies = getproxies_environment()
    authority = f"{address.host}:{address.port}"
    if proxy_bypass_environment(authority, proxies):
        return None
    scheme = address.scheme if proxies.get(address.scheme) else "all"
    text = proxies.get(scheme)
    if not text:
        return None
    name = f"{scheme.upper()}_PROXY"
    try:
        proxy = parse(text if "://" in text else f"http://{text}")
    except ValueError as error:
        raise HttpRefused(f"the proxy that {name} names cannot be used: it {error}") from None
    if proxy.scheme != "http":
        raise HttpRefused(f"the proxy that {name} names cannot be used: write http:// for a proxy")
    return proxy
