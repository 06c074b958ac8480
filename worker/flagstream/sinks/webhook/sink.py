"""Windows as HTTP requests, in GO Feature Flag's shape and with Standard Webhooks' headers.

At least once, with ids by which a receiver makes it exactly once: a request is repeated with the same
``webhook-id`` until it is accepted, by this process or by the next one.
"""

import gzip
import math
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from hashlib import sha256
from http import HTTPStatus

from flagstream.chunk import Partition
from flagstream.errors import PartitionStopped, PartRefused, SinkError, SinkRefused, SinkUnavailable
from flagstream.http.failures import phrase
from flagstream.outcomes import Proof
from flagstream.sinks.protocol import Delivery, Preview
from flagstream.sinks.retry_after import seconds_to_wait
from flagstream.sinks.webhook.body import Part, Parts, PartsEncoder, go_json
from flagstream.sinks.webhook.breaker import CircuitBreaker
from flagstream.sinks.webhook.http import GuardedClient, WebhookAnswer
from flagstream.sinks.webhook.settings import WebhookSettings
from flagstream.sinks.webhook.signing import Signer
from flagstream.window import Manifest, OffsetRange

_PASSING = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}
"""Answers below 500 that pass by themselves."""
_JUDGED = {
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.CONFLICT,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
}
"""Refusals of the content. The others (credentials, rights, an address that does not exist, a redirect) come
before anybody has looked at the content, and may come from a host that no longer is the receiver. A 403 can
be either.
"""
_DIVISIBLE = {
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
}
"""Answers that one event of many may cause, or the number of events. A 403 may also be about rights."""
BELIEVED_SECONDS = 60.0
"""How long a 403 over a kept connection is believed after a new connection gave one."""
_UNANSWERED = {HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT}
"""Answers of a gateway: the receiver may have accepted the events all the same."""


class WebhookSink:
    """Implements :class:`~flagstream.sinks.protocol.PartsSink` with
    :class:`~flagstream.sinks.webhook.body.Parts`.

    ``clock`` is monotonic and drives the circuit breaker; ``now`` is the time of day for signatures.
    """

    unit = "requests"

    def __init__(
        self,
        settings: WebhookSettings,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._now = now
        self._client = GuardedClient(
            settings.endpoint_url.get_secret_value(),
            allow_private=settings.allow_private_addresses,
            connect_timeout=settings.connect_timeout,
            timeout=settings.timeout,
        )
        self._breaker = CircuitBreaker(settings.breaker_failures, settings.breaker_pause, clock)
        secret = settings.secret.get_secret_value() if settings.secret else None
        self._signer = Signer(secret, [one.get_secret_value() for one in settings.previous_secrets])
        self._headers = _fixed_headers(settings)
        self._meta = go_json({"hostname": socket.gethostname(), **settings.meta})
        self._gone = False
        self._clock = clock
        self._asked_anew = -math.inf
        # What decides which event travels under which id: a window that was sent in part must go on under the
        # same cuts. URL, secrets, headers, meta and compression are left out, though they change requests: a
        # receiver that moves, or a secret that is changed, must not stop what is planned, and the ids hold.
        shape = (
            "webhook",
            settings.events,
            settings.max_part_events,
            settings.max_part_bytes,
            settings.event_ids,
        )
        self.fingerprint = sha256("\0".join(map(str, shape)).encode()).hexdigest()[:16]

    def open(self) -> None:
        """Resolve the host's name and judge its addresses. The receiver sees nothing of it: to a receiver,
        any request would be an event.
        """
        self._client.resolve()

    def begin(self, partition: Partition, start: int) -> PartsEncoder:
        settings = self._settings
        return PartsEncoder(partition, settings.max_part_events, settings.max_part_bytes, settings.event_ids)

    def deliver(self, manifest: Manifest, payload: Parts) -> Delivery:
        """Send the parts that are not accepted yet, in order; ``created`` and ``bytes`` count all parts.

        If a part is refused, the error says up to where the parts before it were accepted. Raises
        PartitionStopped after the receiver has answered 410: it wants no more requests, so none is sent until
        a partition is taken over again (:meth:`holdings`). An answer that turns a request away is believed
        only if it comes over a new connection.
        """
        for part in payload.parts[payload.accepted :]:
            try:
                payload.sent += self.send(manifest, part)
            except SinkRefused as error:
                raise SinkRefused(str(error), part.range.start, denied=error.denied) from error
            payload.accepted += 1
        return Delivery(len(payload.parts), 0, payload.sent)

    def parts(self, payload: Parts) -> Sequence[Part]:
        return payload.parts

    def send(self, manifest: Manifest, part: Part) -> int:
        with self._breaker.attempt():
            return self._send(part)

    def holdings(self, partition: Partition, start: int) -> Sequence[OffsetRange] | None:
        """Return None: a receiver cannot be asked. The engine calls this when a partition begins, so a
        receiver that was gone gets another request.
        """
        self._gone = False
        return None

    def probe(self) -> Iterator[Proof]:
        try:
            addresses = self._client.resolve()
            yield Proof("resolve", "proved", f"{self._client.shown}: {', '.join(addresses)}")
            self._client.connect()
            yield Proof("connect", "proved", "with TLS" if "https:" in self._client.shown else "without TLS")
        except SinkError as error:
            yield Proof("connect", "failed", str(error))
        yield Proof("deliver", "unproved", "any request would be an event to the receiver")

    def preview(self, manifest: Manifest, payload: Parts) -> Preview:
        body = payload.parts[0].body(self._meta)
        return Preview([part.id for part in payload.parts], body.decode())

    def close(self) -> None:
        self._client.close()

    def _send(self, part: Part) -> int:
        """Send one part; return the size of the accepted body in bytes."""
        if self._gone:
            raise self._stopped()
        body = part.body(self._meta)
        headers = self._headers + self._signer.headers(part.id, int(self._now()), body)
        if self._settings.compression == "gzip":
            body = gzip.compress(body, mtime=0)
        answer = self._client.post(headers, body)
        if not answer.fresh and _turned_away(answer.status) and not self._is_asked_anew(answer.status):
            # A receiver that moved (DNS) is not found by a connection that was kept.
            before, answer = answer, self._client.post(headers, body, fresh=True)
            answer = replace(answer, repeated=answer.repeated or before.repeated)
            self._asked_anew = self._clock()
        self._judge(answer)
        return len(body)

    def _is_asked_anew(self, status: int) -> bool:
        """Return whether an answer that may be about one event needs no new connection while a refused part
        is divided: the last new connection is recent, and it replaced all older ones.
        """
        return status in _DIVISIBLE and self._clock() < self._asked_anew + BELIEVED_SECONDS

    def _judge(self, answer: WebhookAnswer) -> None:
        """Return if the part was accepted; raise what the answer means otherwise."""
        status = answer.status
        text = f"{self._client.shown} answers {status}{phrase(status)}"
        if 200 <= status <= 299:
            return
        if status == HTTPStatus.GONE:
            self._gone = True
            raise self._stopped()
        if status >= 500 or status in _PASSING:
            wait = seconds_to_wait(answer.retry_after, self._now())
            raise SinkUnavailable(text, wait, unanswered=answer.repeated or status in _UNANSWERED)
        if 300 <= status <= 399:
            text += "; redirects are not followed, write the final address into endpoint_url"
        denied = _turned_away(status)
        if status in _DIVISIBLE:
            raise PartRefused(text, str(status), denied=denied, repeated=answer.repeated)
        raise SinkRefused(text, denied=denied, repeated=answer.repeated)

    def _stopped(self) -> PartitionStopped:
        return PartitionStopped(
            f"{self._client.shown} has answered 410 Gone: it wants no more requests. Correct endpoint_url, "
            "or have the receiver take requests again"
        )


def _turned_away(status: int) -> bool:
    """Return whether an answer refuses a request for a lasting reason that is not in its content."""
    return 300 <= status <= 499 and status not in _PASSING and status not in _JUDGED


def _fixed_headers(settings: WebhookSettings) -> list[tuple[str, str]]:
    headers = [("Content-Type", "application/json"), ("User-Agent", "flagstream")]
    if any(name.lower() == "user-agent" for name in settings.headers):
        headers.pop()
    if settings.compression == "gzip":
        headers.append(("Content-Encoding", "gzip"))
    own = ((name, value) for name, values in settings.headers.items() for value in values)
    return headers + [(name, value.get_secret_value()) for name, value in own]
