"""What an error of Amazon's client library means: who has to act, and the text for them.

No text of the library or of a server is passed on: it may quote a header, an address, a variable of the
environment or what a credential command printed. What is said is said in words of our own, by the error's
code or class.
"""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

from botocore import exceptions as boto
from botocore.exceptions import BotoCoreError, ClientError

from flagstream.errors import FlagstreamError, SinkError, SinkRefused, SinkUnavailable
from flagstream.sinks.objects.bounded_answers import AnswerTooLarge
from flagstream.sinks.retry_after import seconds_to_wait

THROTTLING = {
    "BandwidthLimitExceeded",
    "EC2ThrottledException",
    "LimitExceededException",
    "PriorRequestNotComplete",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "SlowDown",
    "ThrottledException",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
    "TransactionInProgressException",
}
"""Codes that ask to slow down: the list of botocore's standard retries. They come with any status."""

_PASSING_CODES = THROTTLING | {
    "BadDigest",  # damaged on the way
    "ConditionalRequestConflict",
    "IDPCommunicationError",  # the token service could not ask the identity provider
    "IncompleteBody",
    "InternalError",
    "InternalFailure",
    "InternalServerError",
    "NoSuchUpload",  # somebody else has finished or cleared it: the upload begins again
    "OperationAborted",
    "PreconditionFailed",
    "RequestTimeTooSkewed",
    "RequestTimeout",  # comes with status 400
    "RequestTimeoutException",
    "ServiceUnavailable",
    "TemporaryRedirect",  # 307: the bucket is new, and its name is not known everywhere yet
    "TooManyRequests",
}

_PASSING = {307, 408, 409, 412, 425, 429}
"""Statuses below 500 that pass by themselves. 409 and 412 only get here without an object to explain them."""

_ABOUT_CONTENT = {"EntityTooLarge", "EntityTooSmall", "KeyTooLongError", "MetadataTooLarge"}
"""Codes that judge the content, not who sends it where."""

_WORDS = {
    "AccessDenied": "the credentials have no right to this",
    "AccessDeniedException": "the credentials have no right to this",
    "AuthorizationHeaderMalformed": "the request was signed for another region; set region",
    "ExpiredToken": "the session token has expired",
    "ExpiredTokenException": "the token has expired",
    "ExpiredTokenError": "the session token has expired",
    "IDPCommunicationError": "the token service does not reach the identity provider",
    "InvalidAccessKeyId": "the store does not know the access key",
    "InvalidClientTokenId": "the token service does not know the access key",
    "InvalidIdentityToken": "the token service does not accept the web identity token",
    "InvalidStorageClass": "the store does not have storage_class",
    "InvalidToken": "the session token is not valid",
    "MalformedSecurity": "the credentials cannot be read",
    "NoSuchBucket": "the bucket does not exist",
    "NoSuchKey": "the object does not exist",
    "NotImplemented": "the store does not have what the worker needs",
    "PermanentRedirect": "the bucket is in another region; set region",
    "RequestTimeTooSkewed": "the clock of this machine is wrong",
    "SignatureDoesNotMatch": "the secret key does not belong to the access key",
    "TemporaryRedirect": "the bucket is new, and not known everywhere yet",
    "TokenRefreshRequired": "the session token has expired",
    "UnrecognizedClientException": "the token service does not know the credentials",
}
_BY_STATUS = {
    400: "the store does not accept the request, or the credentials have expired",
    401: "the store does not accept the credentials",
    403: "the credentials have no right to this",
    404: "the bucket or the object does not exist",
}

_TROUBLE: dict[type[BaseException], str] = {
    boto.NoCredentialsError: "no credentials were found",
    boto.PartialCredentialsError: "the credentials are incomplete",
    boto.UnauthorizedSSOTokenError: "the SSO session has expired; log in again",
    boto.SSOTokenLoadError: "there is no SSO session; log in first",
    boto.SSOError: "the SSO session cannot be used",
    boto.LoginError: "the login session cannot be used; log in again",
    boto.TokenRetrievalError: "the token cannot be fetched",
    boto.ProfileNotFound: "the profile is not in the AWS configuration",
    boto.ConfigParseError: "the AWS configuration file cannot be read",
    boto.ConfigNotFound: "the AWS configuration file is missing",
    boto.InvalidConfigError: "the AWS configuration is contradictory or incomplete",
    boto.InvalidProxiesConfigError: "the proxy's settings cannot be used",
    boto.NoRegionError: "no region is set",
    boto.InvalidRegionError: "the region is not a name of one; it may come from AWS_DEFAULT_REGION",
    boto.ParamValidationError: "bucket, prefix or another setting is not possible for the store",
}
"""Errors for a person to mend. The first class that an error is an instance of counts."""

_MALFORMED = (
    "a credential, an address or what a credential command printed is malformed, often by a line break at "
    "its end; flagstream config check names a variable that is"
)

_SILENCE: dict[type[BaseException], str] = {
    boto.ConnectTimeoutError: "no connection within connect_timeout",
    boto.ReadTimeoutError: "no answer within read_timeout",
    boto.ProxyConnectionError: "no connection to the proxy",
    boto.EndpointConnectionError: "no connection: the name is not known, or nobody listens",
    boto.ConnectionClosedError: "the connection was closed before the answer",
    boto.IncompleteReadError: "the answer was cut short",
    boto.MetadataRetrievalError: "the service that gives credentials does not answer as expected",
    boto.HTTPClientError: "the connection broke",
    boto.ConnectionError: "no connection",
}
"""Errors that pass by themselves."""

_CODE = re.compile(r"[A-Za-z][A-Za-z0-9.]{2,59}")
_REGION = re.compile(r"[a-z]{2,}(?:-[a-z]+)+-\d{1,2}")
_NOT_GIVEN = re.compile(r"non 200 response \(?(\d{3})")
"""In the text of the library about a container's service for credentials: its answer's status."""
_BROKEN_OFF = re.compile(r"EOF|reset|timed out|closed", re.IGNORECASE)
"""In the text of a TLS error: the connection was cut, and no certificate was judged."""


@contextmanager
def translated(what: str, *, preparing: bool = False) -> Iterator[None]:
    """Turn any error into the SinkError that says who must act; ``what`` says what was being done.

    ``preparing``: the store was not asked yet, so an unforeseen error comes from settings, files,
    variables or commands for credentials, which people mend.
    """
    try:
        yield
    except FlagstreamError:
        raise
    except ClientError as error:
        raise _answered(error, what) from None
    except Exception as error:
        raise _failed(error, what, preparing) from None


def status(error: ClientError) -> int:
    """Return the answer's HTTP status; 0 if there was none."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def code(error: ClientError) -> str:
    """Return the store's own word for the error, or the status for an answer without a body."""
    return str(error.response.get("Error", {}).get("Code", ""))


def _answered(error: ClientError, what: str) -> SinkError:
    answered, word = status(error), code(error)
    # KMS says KMS.DisabledException through the store
    known = word.rpartition(".")[2]
    shown = f" {word}" if _CODE.fullmatch(word) else ""
    text = f"{what}: {error.operation_name}: {answered}{shown}"
    if words := _WORDS.get(known) or _BY_STATUS.get(answered):
        text += f": {words}"
    if known in _PASSING_CODES:
        return SinkUnavailable(text, _retry_after(error))
    # A code that we have words for means the same with any status: a store can say 200 and then fail.
    # 501: the store does not know what we need, and will not learn it by itself.
    passing = answered in _PASSING or not (300 <= answered < 500 or answered == 501)
    if passing and known not in _WORDS:
        return SinkUnavailable(text, _retry_after(error))
    region = _headers(error).get("x-amz-bucket-region", "")
    if answered in (301, 308, 400) and _REGION.fullmatch(region):
        text += f"; the bucket is in the region {region}"
    return SinkRefused(text, denied=known not in _ABOUT_CONTENT)


def _failed(error: Exception, what: str, preparing: bool) -> SinkError:
    """Return the error for a request without an answer."""
    ours = isinstance(error, BotoCoreError)
    inner = error.kwargs.get("error") if isinstance(error, BotoCoreError) else None
    if isinstance(inner, AnswerTooLarge):
        return SinkUnavailable(f"{what}: {inner}")
    if isinstance(inner, ValueError) or (isinstance(error, ValueError) and not ours):
        # Such as a line break in a token: http.client quotes the whole header.
        return _refused(what, _MALFORMED, error)
    if isinstance(error, boto.SSLError):
        if _BROKEN_OFF.search(str(inner)):
            return SinkUnavailable(f"{what}: the connection broke while TLS was agreed on")
        return _refused(what, "TLS fails: the certificate is not trusted, or not for this name", error)
    if isinstance(error, boto.CredentialRetrievalError):
        return _not_retrieved(error, what)
    for kind, words in _TROUBLE.items():
        if isinstance(error, kind):
            return _refused(what, words, error)
    for kind, words in _SILENCE.items():
        if isinstance(error, kind):
            return SinkUnavailable(f"{what}: {words}")
    if isinstance(error, OSError) and error.errno is not None and preparing:
        return _refused(what, "a file or command of the AWS configuration cannot be used", error)
    if preparing or isinstance(error, BotoCoreError | RuntimeError | FileNotFoundError | PermissionError):
        return _refused(what, "the client cannot be used as it is configured", error)
    return SinkUnavailable(f"{what}: no answer that can be understood ({type(error).__name__})")


def _not_retrieved(error: BotoCoreError, what: str) -> SinkError:
    provider, said = error.kwargs.get("provider"), str(error.kwargs.get("error_msg"))
    if provider == "custom-process":
        return _refused(what, "the credential command (credential_process) fails", error)
    found = _NOT_GIVEN.search(said)
    denied = found is not None and int(found[1]) < 500 and int(found[1]) not in _PASSING
    if denied or str(provider).startswith("assume-role"):
        return _refused(what, "the service for credentials refuses to give any", error)
    return SinkUnavailable(f"{what}: the service for credentials does not give any")


def _refused(what: str, words: str, error: Exception) -> SinkRefused:
    return SinkRefused(f"{what}: {words} ({type(error).__name__})", denied=True)


def _headers(error: ClientError) -> dict[str, str]:
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    return {str(name).lower(): str(value) for name, value in headers.items()}


def _retry_after(error: ClientError) -> float | None:
    return seconds_to_wait(_headers(error).get("retry-after"), time.time())
