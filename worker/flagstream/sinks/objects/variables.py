"""The environment variables that clients of stores read, as far as a configuration check can judge them."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping

from flagstream.http.address import is_address

AWS_CREDENTIALS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_SECURITY_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
)
AWS = (
    "AWS_CA_BUNDLE",
    "AWS_CONFIG_FILE",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL_STS",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT",
    "AWS_REGION",
    "AWS_SHARED_CREDENTIALS_FILE",
)
GOOGLE_CREDENTIALS = (
    "GOOGLE_APPLICATION_CREDENTIALS",
    "GCE_METADATA_HOST",
    "GCE_METADATA_IP",
    "GCE_METADATA_ROOT",
)
GOOGLE = (
    "CLOUDSDK_CONFIG",
    "GCLOUD_PROJECT",
    "GOOGLE_CLOUD_PROJECT",
    "GOOGLE_CLOUD_QUOTA_PROJECT",
    "REQUESTS_CA_BUNDLE",
    "STORAGE_EMULATOR_HOST",
)
PROXIES = ("ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "http_proxy", "https_proxy")

ADDRESSES = frozenset(
    {
        "AWS_EC2_METADATA_SERVICE_ENDPOINT",
        "AWS_ENDPOINT_URL",
        "AWS_ENDPOINT_URL_S3",
        "AWS_ENDPOINT_URL_STS",
        "STORAGE_EMULATOR_HOST",
    }
)
"""The variables that hold a whole address."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def malformed(names: Iterable[str], environ: Mapping[str, str] = os.environ) -> Iterator[str]:
    """Yield a line for each variable that has a control character in it, or not the address that it should
    hold; never with its value.

    A control character is never meant (a line break at the end of a file that was read into the variable),
    and the libraries would quote the whole value when they fail.
    """
    for name in names:
        value = environ.get(name, "")
        if _CONTROL.search(value):
            yield f"the variable {name} holds a control character, such as a line break at its end; remove it"
        elif value and name in ADDRESSES and not is_address(value):
            yield f"the variable {name} holds no address; write https://HOST or http://HOST:PORT"
