"""Values that stores have rules for: buckets, regions, roles, classes, content types, tags.

The store, or its client, would refuse these values at the first object. Sources: Amazon's S3 User Guide
(bucket naming rules, object tagging), botocore's `validate_region_name`, Google's reference of storage
classes and Cloud KMS, RFC 9110 for content types and codings.
"""

import re
from collections.abc import Sequence
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator

from flagstream.http.address import is_address
from flagstream.nearest import nearest
from flagstream.units import Line, shown, wrong

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_TAG = re.compile(r"[\w\s+\-=.:/@]*")
_AMAZON = re.compile(
    r"arn:[\w-]+:s3:::(?P<arn>[^/]+)(/.*)?"
    r"|(https?://)?((?P<bucket>[\w.-]+)\.)?s3[a-z0-9.-]*\.amazonaws\.com(\.cn)?/?(?P<first>[^/]*).*"
)
"""A bucket as consoles and documents show it: its ARN, and its addresses, with it in the host or the path."""
S3_CLASSES = (
    "STANDARD",
    "STANDARD_IA",
    "ONEZONE_IA",
    "INTELLIGENT_TIERING",
    "REDUCED_REDUNDANCY",
    "GLACIER_IR",
    "EXPRESS_ONEZONE",
    "OUTPOSTS",
    "GLACIER",
    "DEEP_ARCHIVE",
    "SNOW",
    "FSX_OPENZFS",
)
GCS_CLASSES = ("STANDARD", "NEARLINE", "COLDLINE", "ARCHIVE", "MULTI_REGIONAL", "REGIONAL")


def _bucket(scheme: str, pattern: str) -> AfterValidator:
    def check(text: str) -> str:
        named = _AMAZON.fullmatch(text)
        if named and (bucket := named["arn"] or named["bucket"] or named["first"]):
            raise wrong(f"{shown(text)} is an address of the bucket; write its name alone: {shown(bucket)}")
        if re.fullmatch(pattern, text):
            return text
        name = re.sub(r"^[A-Za-z0-9]+://", "", text).strip().strip("/")
        bucket, slash, path = name.partition("/")
        advice = f'"{bucket}"' + (f', and "{path}" as prefix or key' if slash else "")
        if not re.fullmatch(pattern, bucket):
            advice = "letters, digits, dots and dashes"
        raise wrong(
            f"{shown(text)} is not the name of a bucket; write it without {scheme}:// and without slashes: "
            f"{advice}"
        )

    return AfterValidator(check)


S3Bucket = Annotated[str, _bucket("s3", r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}|arn:[\w.:/-]+")]
"""Also of stores with looser rules than Amazon's, and the ARN of an access point."""
GcsBucket = Annotated[str, _bucket("gs", r"[a-z0-9][a-z0-9._-]*[a-z0-9]")]


def _prefix(text: str) -> str:
    if re.match(r"[A-Za-z0-9]+://", text):
        raise wrong(f"{shown(text)} is an address; write the bucket as bucket, and here only what follows it")
    return text


Prefix = Annotated[Line, AfterValidator(_prefix)]


def endpoint_of(advice: str) -> AfterValidator:
    """Check the address of a store, for sinks and sources of flags; "" is the store's own address. ``advice``
    says where credentials are set.
    """

    def check(text: str) -> str:
        if "@" in text:  # may hold a password, so it is not repeated
            raise wrong(f"holds no user or password; {advice}")
        if text and (not is_address(text) or urlsplit(text).query or re.search(r"\s", text)):
            raise wrong(f"{shown(text)} is not an address; write https://host or http://host:port")
        return text.rstrip("/")

    return AfterValidator(check)


def endpoint_problem(endpoint: str, bucket: str) -> str | None:
    """Return what is wrong if S3's ``endpoint`` also holds the bucket, as consoles show it; None
    otherwise.
    """
    parts = urlsplit(endpoint)
    host = parts.netloc.removeprefix(f"{bucket}.") if "amazonaws.com" in parts.netloc else parts.netloc
    if host == parts.netloc and parts.path.strip("/") != bucket:
        return None
    return f"holds the bucket, which stands in bucket; write {parts.scheme}://{host}"


def _region(text: str | None) -> str | None:
    if not text:
        return text
    if zone := re.fullmatch(r"([a-z]{2}(?:-[a-z]+)+-\d)[a-z]", text):
        raise wrong(f'{shown(text)} is an availability zone; write its region, "{zone[1]}"')
    if not re.fullmatch(r"(?![0-9]+$)(?!-)[A-Za-z0-9-]{1,63}(?<!-)", text):
        raise wrong(f'{shown(text)} is not a region; write one such as "eu-west-1"')
    return text


Region = Annotated[str, AfterValidator(_region)]
MaybeRegion = Annotated[str | None, AfterValidator(_region)]


def _role(text: str) -> str:
    if text and not re.fullmatch(r"arn:[^\s:]+:\S+", text):
        raise wrong(f'{shown(text)} is not a role; write "arn:aws:iam::ACCOUNT:role/NAME"')
    return text


RoleArn = Annotated[str, AfterValidator(_role)]


def _content_type(text: str) -> str:
    if text and not re.fullmatch(rf"{_TOKEN}/{_TOKEN}(\s*;[\x20-\x7e]*)?", text):
        raise wrong(f'{shown(text)} is not a content type; write one such as "application/json"')
    return text


ContentType = Annotated[Line, AfterValidator(_content_type)]


def _content_encoding(text: str) -> str:
    if text and not re.fullmatch(rf"{_TOKEN}(\s*,\s*{_TOKEN})*", text):
        raise wrong(f'{shown(text)} is not a content encoding; write one such as "gzip"')
    return text


ContentEncoding = Annotated[Line, AfterValidator(_content_encoding)]


def _class(text: str) -> str:
    if not re.fullmatch(r"[A-Z0-9_]*", text):
        raise wrong(
            f"{shown(text)} is not a storage class; they are capitals: write {shown(text.upper().strip())}"
        )
    return text


StorageClass = Annotated[str, AfterValidator(_class)]


def class_problem(text: str, known: Sequence[str]) -> str | None:
    """Return why a service with the classes ``known`` takes no objects of class ``text``; None if it does."""
    if not text or text in known:
        return None
    return f"{shown(text)} is not a storage class{nearest(text, known)}"


def _kms_key(text: str) -> str:
    if text and not re.fullmatch(r"projects/[^/]+/locations/[^/]+/keyRings/[^/]+/cryptoKeys/[^/]+", text):
        raise wrong(
            f"{shown(text)} is not a key; write projects/P/locations/L/keyRings/R/cryptoKeys/K, no version"
        )
    return text


KmsKeyName = Annotated[str, AfterValidator(_kms_key)]


def _project(text: str) -> str:
    if text and not re.fullmatch(r"[a-z0-9.:-]+", text):
        raise wrong(f'{shown(text)} is not a project; write its id, such as "my-project-123", not its name')
    return text


Project = Annotated[str, AfterValidator(_project)]


def _tags(tags: dict[str, str]) -> dict[str, str]:
    for key, value in tags.items():
        if not 1 <= len(key) <= 128 or len(value) > 256:
            raise wrong(f"{shown(key)}: a tag has at most 128 characters, its value at most 256")
        if key.lower().startswith("aws:"):
            raise wrong(f"{shown(key)}: names that begin with aws: are Amazon's own")
        if not _TAG.fullmatch(key) or not _TAG.fullmatch(value):
            raise wrong(f"{shown(key)}: tags are letters, digits, spaces and + - = . _ : / @")
    return tags


Tags = Annotated[dict[str, str], AfterValidator(_tags)]
