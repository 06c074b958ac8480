"""The variables that Kubernetes puts into each pod for each Service of the namespace.

A Service ``flagstream-web`` with port 80 makes ``FLAGSTREAM_WEB_SERVICE_HOST`` and six more. Source:
Kubernetes,
``pkg/kubelet/envvars/envvars.go``.
"""

import re
from ipaddress import ip_address

_PROTOCOL = "tcp|udp|sctp"
_URL = re.compile(rf"(?P<protocol>{_PROTOCOL})://(?P<host>[^/]+):(?P<port>[0-9]+)")
_OF_PORT = re.compile(
    rf"_PORT_(?P<port>[0-9]+)_(?P<protocol>{_PROTOCOL.upper()})(?P<what>|_PROTO|_PORT|_ADDR)"
)


def is_service_variable(name: str, value: str) -> bool:
    """Whether Kubernetes would set ``name`` to such a ``value``; a setting that is misspelt has
    another one."""
    if found := re.search(_OF_PORT.pattern + "$", name):
        match found["what"]:
            case "_PROTO":
                return value == found["protocol"].lower()
            case "_PORT":
                return value == found["port"]
            case "_ADDR":
                return _is_address(value)
        url = _URL.fullmatch(value)
        return (
            url is not None
            and (url["protocol"].upper(), url["port"]) == (found["protocol"], found["port"])
            and _is_address(url["host"])
        )
    if name.endswith("_SERVICE_HOST"):
        return _is_address(value)
    if re.search(r"_SERVICE_PORT(_[A-Z0-9_]+)?$", name):
        return _is_port(value)
    if name.endswith("_PORT"):
        url = _URL.fullmatch(value)
        return url is not None and _is_address(url["host"]) and _is_port(url["port"])
    return False


def _is_address(text: str) -> bool:
    try:
        ip_address(text.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def _is_port(text: str) -> bool:
    return re.fullmatch(r"[0-9]{1,5}", text) is not None and 0 < int(text) < 65536
