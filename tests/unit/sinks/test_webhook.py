"""What the webhook sink makes of a receiver's answers, and what it never shows."""

import gzip
import pickle
import socket
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from pydantic import ValidationError

from flagstream.errors import PartitionStopped, PartRefused, SinkError, SinkRefused, SinkUnavailable
from flagstream.http.failures import HttpRefused
from flagstream.sinks.registry import SINKS, build
from flagstream.sinks.webhook.settings import WebhookSettings
from flagstream.sinks.webhook.signing import Signer
from flagstream.sinks.webhook.sink import WebhookSink
from flagstream.testing import Window, events, fill
from flagstream.window import Manifest
from tests.support.receiver import Answer, CloseHalfWay, Hang, Receiver, Reply, Request, receiving

NOW = 1_700_000_000.0
MakeSink = Callable[..., WebhookSink]


class Clock:
    """Both clocks of a sink; a test moves it."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make(receiver: Receiver, clock: Clock) -> MakeSink:
    """Makes sinks for the receiver."""

    def make(**settings: Any) -> WebhookSink:
        all_settings = {"endpoint_url": receiver.url, "allow_private_addresses": True, **settings}
        return WebhookSink(WebhookSettings.model_validate(all_settings), clock, clock)

    return make


def deliver(sink: WebhookSink, window: Window) -> None:
    sink.deliver(window.manifest, window.payload)


def ends(requests: list[Request]) -> list[str]:
    """The ranges in the ids of requests, in order."""
    return ["-".join(request.id.split("-")[-2:]) for request in requests]


class TestRetries:
    """What is sent again, and under which ids."""

    def test_goes_on_behind_what_was_accepted(self, receiver: Receiver, make: MakeSink) -> None:
        """A try after a failure repeats the part that failed, with its id, and none that was accepted."""
        sink = make(max_part_events=10)
        window = fill(sink, events(35))
        # The last connection is the first sink's, which keeps it: its end there is tried once more on a new
        # one.
        receiver.plan(Reply(), Reply(503), Hang(), CloseHalfWay(), CloseHalfWay())
        sink_in_a_hurry = make(max_part_events=10, timeout=0.2)
        for one in (sink, sink_in_a_hurry, sink):
            with pytest.raises(SinkUnavailable):
                deliver(one, window)
        delivery = sink.deliver(window.manifest, window.payload)
        assert ends(receiver.requests) == ["0-10", *["10-20"] * 5, "20-30", "30-35"]
        assert ends(receiver.accepted) == ["0-10", "10-20", "20-30", "30-35"]
        assert receiver.values() == events(35)
        assert (delivery.created, delivery.existing) == (4, 0)
        assert delivery.bytes == sum(len(request.body) for request in receiver.accepted)

    def test_another_process_repeats_all_with_the_same_ids(self, receiver: Receiver, make: MakeSink) -> None:
        """Who takes over cannot know what was accepted: a receiver that keeps ids gets each event once."""
        first, second = make(max_part_events=10), make(max_part_events=10)
        receiver.plan(Reply(), Reply(503))
        window = fill(first, events(25))
        with pytest.raises(SinkUnavailable):
            deliver(first, window)
        deliver(second, fill(second, events(25), cuts=[3, 4]))
        by_id = {request.id: request.content for request in receiver.accepted}
        assert ends(receiver.accepted) == ["0-10", "0-10", "10-20", "20-25"]
        assert [receiver.accepted[0].content] == [by_id[receiver.accepted[1].id]]
        assert len(by_id) == 3

    def test_answer_that_is_lost(self, receiver: Receiver, make: MakeSink) -> None:
        """A receiver that took a request and could not say so sees its id again."""
        sink = make()
        window = fill(sink, events(3))
        receiver.plan(CloseHalfWay())
        with pytest.raises(SinkUnavailable):
            deliver(sink, window)
        deliver(sink, window)
        assert [request.id for request in receiver.requests] == [str(window.manifest.range)] * 2

    def test_time_of_each_try(self, receiver: Receiver, make: MakeSink, clock: Clock) -> None:
        """Timestamp and signature are those of the try: receivers refuse old ones."""
        sink = make(secret="secret", previous_secrets=["old"])
        window = fill(sink, events(3))
        receiver.plan(Reply(500))
        with pytest.raises(SinkUnavailable):
            deliver(sink, window)
        clock.now += 3600.5
        deliver(sink, window)
        first, second = receiver.requests
        assert first.body == second.body
        for request, at in ((first, 1_700_000_000), (second, 1_700_003_600)):
            expected = Signer("secret", ["old"]).headers(request.id, at, request.body)
            assert {name: request.header(name) for name, _ in expected} == dict(expected)


class TestAnswers:
    """Who has to act, by status."""

    @pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
    def test_accepted(self, receiver: Receiver, make: MakeSink, status: int) -> None:
        """Any 2xx counts as success."""
        receiver.plan(Reply(status))
        sink = make()
        deliver(sink, fill(sink, events(1)))

    @pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 599])
    def test_passes_by_itself(self, receiver: Receiver, make: MakeSink, status: int) -> None:
        """Retried: after the engine's back-off, or when the receiver says."""
        receiver.plan(Reply(status), Reply(status, {"Retry-After": "7"}))
        sink = make()
        window = fill(sink, events(1))
        for wait in (None, 7.0):
            with pytest.raises(SinkUnavailable, match=str(status)) as error:
                deliver(sink, window)
            assert error.value.retry_after == wait

    @pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 413, 422, 451])
    def test_refused(self, receiver: Receiver, make: MakeSink, status: int) -> None:
        """A person must act; as soon as somebody did, the same part goes through."""
        receiver.plan(Reply(status))
        sink = make()
        window = fill(sink, events(1))
        with pytest.raises(SinkRefused, match=str(status)):
            deliver(sink, window)
        deliver(sink, window)
        assert len(receiver.accepted) == 1

    @pytest.mark.parametrize("status", [301, 302, 303, 304, 307, 308])
    def test_redirects_are_not_followed(self, receiver: Receiver, make: MakeSink, status: int) -> None:
        """A redirect is not taken for success either: nobody has the events. GO Feature Flag takes them for
        success."""
        receiver.plan(Reply(status, {"Location": f"{receiver.url}/elsewhere"}))
        sink = make()
        with pytest.raises(SinkRefused, match="redirects are not followed"):
            deliver(sink, fill(sink, events(1)))
        assert [request.path for request in receiver.requests] == ["/hook"]

    def test_gone_stops(self, receiver: Receiver, make: MakeSink) -> None:
        """410: nothing more is sent, for no partition, until the worker starts again."""
        receiver.plan(Reply(410))
        sink = make()
        window = fill(sink, events(1))
        for _ in range(3):
            with pytest.raises(PartitionStopped, match="410 Gone"):
                deliver(sink, window)
        assert len(receiver.requests) == 1
        deliver(make(), window)
        assert len(receiver.accepted) == 1

    def test_gone_is_asked_again_when_a_partition_begins(self, receiver: Receiver, make: MakeSink) -> None:
        """A partition that looks again finds a receiver that was mended."""
        receiver.plan(Reply(410))
        sink = make()
        window = fill(sink, events(1))
        with pytest.raises(PartitionStopped):
            deliver(sink, window)
        assert sink.holdings(window.manifest.range.partition, 0) is None
        deliver(sink, window)
        assert len(receiver.accepted) == 1

    @pytest.mark.parametrize("status", [301, 401, 403, 404, 410])
    def test_a_receiver_that_moved(
        self, receiver: Receiver, make: MakeSink, monkeypatch: pytest.MonkeyPatch, status: int
    ) -> None:
        """What the old host says over a connection that was kept is not believed: the name is looked up
        again.
        """
        addresses = ["127.0.0.1"]

        def found(*_: object, **__: object) -> object:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (addresses[0], receiver.port))]

        monkeypatch.setattr(socket, "getaddrinfo", found)
        sink = make(endpoint_url=f"http://hook.example:{receiver.port}/")
        deliver(sink, fill(sink, events(1)))
        with receiving("127.0.0.2", receiver.port) as new:
            addresses[:] = ["127.0.0.2"]
            receiver.answer = lambda request: Reply(status)
            deliver(sink, fill(sink, events(2)[1:], start=1))
            assert new.values() == events(2)[1:]
        assert receiver.values() == events(1)

    @pytest.mark.parametrize("status", [400, 409, 413, 422])
    def test_a_refusal_of_what_was_sent(self, receiver: Receiver, make: MakeSink, status: int) -> None:
        """It is believed at once, and does not concern credentials."""
        sink = make()
        deliver(sink, fill(sink, events(1)))
        receiver.plan(Reply(status))
        with pytest.raises(SinkRefused) as caught:
            deliver(sink, fill(sink, events(1), start=1))
        assert not caught.value.denied
        assert len(receiver.requests) == 2

    @pytest.mark.parametrize("status", [302, 401, 403, 404, 405, 407, 421])
    def test_turned_away(self, receiver: Receiver, make: MakeSink, status: int) -> None:
        """Nobody looked at what was sent: that counts only after `refused_after`."""
        receiver.plan(Reply(status))
        sink = make()
        with pytest.raises(SinkRefused) as caught:
            deliver(sink, fill(sink, events(1)))
        assert caught.value.denied

    def test_a_kept_connection_that_ended_is_no_failure(
        self, receiver: Receiver, make: MakeSink, clock: Clock
    ) -> None:
        """The breaker does not count it either."""
        sink = make(breaker_failures=1)
        deliver(sink, fill(sink, events(1)))
        receiver.plan(CloseHalfWay())
        deliver(sink, fill(sink, events(1), start=1))
        deliver(sink, fill(sink, events(1), start=2))
        assert len(receiver.accepted) == 3


class TestParts:
    """What the engine learns about a part that was not accepted: whether it may be divided."""

    @pytest.mark.parametrize("status", [400, 403, 413, 422])
    def test_refusals_that_a_smaller_part_may_escape(
        self, receiver: Receiver, make: MakeSink, status: int
    ) -> None:
        """They may be due to one event, or to how many there are; 403 also to missing rights."""
        receiver.plan(Reply(status))
        sink = make()
        window = fill(sink, events(3))
        with pytest.raises(PartRefused, match=str(status)) as error:
            sink.send(window.manifest, sink.parts(window.payload)[0])
        assert (error.value.code, error.value.denied) == (str(status), status == 403)
        assert not error.value.repeated

    @pytest.mark.parametrize("status", [301, 401, 404, 405, 407, 409, 451])
    def test_refusals_that_say_nothing_about_the_events(
        self, receiver: Receiver, make: MakeSink, status: int
    ) -> None:
        """Smaller parts would be refused as well."""
        receiver.plan(Reply(status))
        sink = make()
        window = fill(sink, events(3))
        with pytest.raises(SinkRefused) as error:
            sink.send(window.manifest, sink.parts(window.payload)[0])
        assert not isinstance(error.value, PartRefused)

    @pytest.mark.parametrize(
        ("answer", "unanswered"),
        [
            (CloseHalfWay(), True),
            (CloseHalfWay(b"HTTP/1.1 2"), True),
            (Hang(), True),
            (Reply(502), True),
            (Reply(504), True),
            (Reply(500), False),
            (Reply(503), False),
            (Reply(429), False),
        ],
    )
    def test_what_may_have_been_taken_unseen(
        self, receiver: Receiver, make: MakeSink, answer: Answer, unanswered: bool
    ) -> None:
        """No answer, or one of a gateway that got none."""
        receiver.plan(answer)
        sink = make(timeout="300ms")
        window = fill(sink, events(1))
        with pytest.raises(SinkUnavailable) as error:
            sink.send(window.manifest, sink.parts(window.payload)[0])
        assert error.value.unanswered == unanswered

    def test_a_receiver_that_is_not_there_has_taken_nothing(self, make: MakeSink) -> None:
        """No connection, and then the breaker that leaves it alone."""
        sink = make(endpoint_url="http://127.0.0.1:1/", breaker_failures=1)
        window = fill(sink, events(1))
        for _ in range(2):
            with pytest.raises(SinkUnavailable) as error:
                sink.send(window.manifest, sink.parts(window.payload)[0])
            assert not error.value.unanswered

    def test_a_request_that_was_repeated_says_so(self, receiver: Receiver, make: MakeSink) -> None:
        """A kept connection ended without an answer: the receiver may have taken what it refuses now."""
        receiver.plan(Reply(), CloseHalfWay(), Reply(413))
        sink = make()
        window = fill(sink, events(1))
        deliver(sink, window)
        with pytest.raises(PartRefused) as error:
            sink.send(window.manifest, sink.parts(window.payload)[0])
        assert error.value.repeated
        assert receiver.connections == 2

    @pytest.mark.parametrize("status", [401, 404, 503])
    def test_another_answer_to_a_repeated_request_hides_nothing(
        self, receiver: Receiver, make: MakeSink, status: int
    ) -> None:
        """It says nothing of the request before, which may have been taken: no later refusal may divide the
        part.
        """
        receiver.plan(Reply(), CloseHalfWay(), Reply(status))
        sink = make()
        window = fill(sink, events(1))
        deliver(sink, window)
        with pytest.raises(SinkError) as error:
            sink.send(window.manifest, sink.parts(window.payload)[0])
        match error.value:
            case SinkUnavailable() as unavailable:
                assert unavailable.unanswered
            case SinkRefused() as refused:
                assert refused.repeated

    def test_a_host_that_is_doubted_after_a_request_was_sent(
        self, receiver: Receiver, make: MakeSink, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The kept connection ended, and no other is made: its name leads to a forbidden address now."""
        sink = make()
        window = fill(sink, events(1))
        deliver(sink, window)
        receiver.plan(CloseHalfWay())

        def refused(*_: object) -> object:
            raise HttpRefused("no public address")

        monkeypatch.setattr("flagstream.http.connecting.Addresses.resolve", refused)
        with pytest.raises(SinkRefused) as error:
            sink.send(window.manifest, sink.parts(window.payload)[0])
        assert error.value.repeated


class TestCircuit:
    """A receiver that is down is left alone by all partitions."""

    def test_eight_kept_connections_that_are_silently_dropped(
        self, receiver: Receiver, make: MakeSink
    ) -> None:
        """What lies between forgets idle connections without a word. All partitions deliver over new ones;
        the receiver is not left alone.
        """
        sink = make(timeout="1s", breaker_failures=1)
        with ThreadPoolExecutor(8) as threads:

            def deliver_eight(start: int) -> None:
                windows = [fill(sink, events(1, number), start=start + number) for number in range(8)]
                list(threads.map(lambda window: deliver(sink, window), windows))

            at_once = threading.Barrier(8)
            took = receiver.took

            def together(request: Request) -> Answer:
                at_once.wait(10)
                return took(request)

            receiver.took = together  # type: ignore[method-assign]
            deliver_eight(0)
            receiver.took = took  # type: ignore[method-assign]
            assert receiver.connections == 8
            receiver.answer = lambda request: Hang() if request.connection < 8 else Reply()
            deliver_eight(8)
        assert len(receiver.accepted) == 16

    def test_left_alone_and_found_again(self, receiver: Receiver, make: MakeSink, clock: Clock) -> None:
        """After the failures allowed no request is made; after the pause one is, and then all."""
        sink = make(breaker_failures=2, breaker_pause="30s")
        one, other = fill(sink, events(1)), fill(sink, events(1), start=100)
        receiver.plan(Reply(500), Reply(500))
        for window in (one, other):
            with pytest.raises(SinkUnavailable, match="500"):
                deliver(sink, window)
        with pytest.raises(SinkUnavailable, match="left alone") as error:
            deliver(sink, one)
        assert error.value.retry_after == 30.0
        assert len(receiver.requests) == 2
        clock.now += 30
        deliver(sink, one)
        deliver(sink, other)
        assert len(receiver.accepted) == 2

    def test_too_many_requests_holds_for_all(self, receiver: Receiver, make: MakeSink, clock: Clock) -> None:
        """A receiver that says how long to wait says it to all partitions."""
        sink = make()
        one, other = fill(sink, events(1)), fill(sink, events(1), start=100)
        receiver.plan(Reply(429, {"Retry-After": "12"}))
        with pytest.raises(SinkUnavailable, match="429"):
            deliver(sink, one)
        with pytest.raises(SinkUnavailable, match="left alone") as error:
            deliver(sink, other)
        assert error.value.retry_after == 12.0
        assert len(receiver.requests) == 1


class TestRequest:
    """What a request carries."""

    def test_headers(self, receiver: Receiver, make: MakeSink) -> None:
        """The request has the user's headers, each value of a list, and the sink's own, each once."""
        sink = make(headers={"Authorization": "Bearer t", "X-Two": ["1", "2"]}, secret="s")
        deliver(sink, fill(sink, events(2)))
        (request,) = receiver.requests
        assert request.method == "POST"
        assert request.header("Authorization") == "Bearer t"
        assert request.header("Content-Type") == "application/json"
        assert request.header("User-Agent") == "flagstream"
        assert [value for name, value in request.headers if name == "X-Two"] == ["1", "2"]
        assert request.header("Content-Encoding") is None
        names = ("webhook-id", "webhook-timestamp", "webhook-signature", "X-Hub-Signature-256")
        assert all(request.header(name) for name in names)

    def test_gzip(self, receiver: Receiver, make: MakeSink) -> None:
        """The same bytes on every try; signatures are those of the JSON inside."""
        plain, packed = make(secret="s"), make(secret="s", compression="gzip")
        for sink in (plain, packed, packed):
            deliver(sink, fill(sink, events(100)))
        one, two, three = receiver.requests
        assert (one.header("Content-Encoding"), two.header("Content-Encoding")) == (None, "gzip")
        assert gzip.decompress(two.body) == one.body
        assert len(two.body) < len(one.body) / 5
        assert two.body == three.body
        assert two.header("X-Hub-Signature-256") == one.header("X-Hub-Signature-256")
        assert two.header("webhook-signature") == one.header("webhook-signature")

    def test_user_agent_of_ones_own(self, receiver: Receiver, make: MakeSink) -> None:
        """May be set like any other header."""
        sink = make(headers={"user-agent": "mine"})
        deliver(sink, fill(sink, events(1)))
        assert receiver.requests[0].header("User-Agent") == "mine"


class TestWithoutDelivering:
    """What a sink can say and try without a receiver seeing an event."""

    def test_open_sends_nothing(self, receiver: Receiver, make: MakeSink) -> None:
        """Opening does not even make a connection: only the name is resolved."""
        make().open()
        assert receiver.connections == 0

    def test_prove(self, receiver: Receiver, make: MakeSink) -> None:
        """Name and connection are proved; that events are taken cannot be without sending some."""
        proofs = list(make().probe())
        assert [(proof.what, proof.outcome) for proof in proofs] == [
            ("resolve", "proved"),
            ("connect", "proved"),
            ("deliver", "unproved"),
        ]
        assert receiver.requests == []

    def test_prove_of_a_receiver_that_is_not_there(self, make: MakeSink) -> None:
        """A failure is reported, not raised."""
        (resolved, connected, delivered) = make(endpoint_url="http://127.0.0.1:1/").probe()
        assert (resolved.outcome, connected.outcome, delivered.outcome) == ("proved", "failed", "unproved")
        assert "refused" in connected.detail

    def test_preview(self, receiver: Receiver, make: MakeSink) -> None:
        """The ids of the requests, and the first one's body."""
        sink = make(max_part_events=2, meta={"hostname": "h"})
        window = fill(sink, events(3))
        preview = sink.preview(window.manifest, window.payload)
        assert list(preview.names) == ["evaluations-3-0-2", "evaluations-3-2-3"]
        assert preview.record.startswith('{"meta":{"hostname":"h"},"events":[{"kind":"feature",')
        assert receiver.connections == 0


class TestFingerprint:
    """What stops a window that is planned, and what does not."""

    @pytest.mark.parametrize(
        "change",
        [{"max_part_events": 9}, {"max_part_bytes": 999}, {"event_ids": True}, {"events": "tracking"}],
        ids=str,
    )
    def test_cuts_and_ids(self, make: MakeSink, change: dict[str, Any]) -> None:
        """Whatever would put an event under another id than the one it may have been sent with."""
        assert make(**change).fingerprint != make().fingerprint

    @pytest.mark.parametrize(
        "change",
        [
            {"endpoint_url": "https://elsewhere.example/"},
            {"secret": "s"},
            {"headers": {"A": "b"}},
            {"meta": {"a": "b"}},
            {"compression": "gzip"},
        ],
        ids=str,
    )
    def test_not_the_rest(self, make: MakeSink, change: dict[str, Any]) -> None:
        """A receiver that moves and a secret that is changed do not stop what is planned."""
        assert make(**change).fingerprint == make().fingerprint


class TestSettings:
    """Each mistake is reported before anything is touched and without a secret in it."""

    @pytest.mark.parametrize(
        "url",
        [
            "",
            " https://hooks.example/tok",
            "hooks.example/tok",
            "ftp://hooks.example/tok",
            "https:///tok",
            "https://hooks.example:99999/tok",
            "https://hooks.example:0/tok",
            "https://hooks example/tok",
            "https://hooks.example/tok\r\nX: y",
        ],
    )
    def test_url(self, url: str) -> None:
        """No address of a webhook; a space in front is one mistake of GO Feature Flag's tests."""
        self.fails(endpoint_url=url)

    @pytest.mark.parametrize("name", ["Content-Type", "webhook-id", "X-HUB-Signature-256", "Host", "a b", ""])
    def test_header_names(self, name: str) -> None:
        """Headers that the sink sets, and names that are none."""
        self.fails(headers={name: "tok"})

    @pytest.mark.parametrize("value", ["tok\r\nX: y", "tok\x00", "tok\u20ac"])
    def test_header_values(self, value: str) -> None:
        """A line break would smuggle in further headers."""
        self.fails(headers={"Authorization": value})

    @pytest.mark.parametrize("secret", ["", "whsec_tok!"])
    def test_secrets(self, secret: str) -> None:
        """An empty secret would sign with nothing."""
        self.fails(secret=secret)
        self.fails(secret="right", previous_secrets=[secret])

    def test_neither_text_nor_list(self) -> None:
        """One text stands for a list of one; a number does not."""
        assert self.settings(headers={"A": "b"}) == self.settings(headers={"A": ["b"]})
        self.fails(previous_secrets=5)
        self.fails(headers={"A": {"tok": "tok"}})

    def test_previous_secrets_alone(self) -> None:
        """Rotation needs the secret that is in use."""
        settings = self.settings(previous_secrets="old")
        assert [key for key, _ in settings.problems()] == ["previous_secrets"]
        assert list(self.settings(secret="new", previous_secrets="old").problems()) == []

    def settings(self, **changes: Any) -> WebhookSettings:
        return WebhookSettings.model_validate({"endpoint_url": "https://hooks.example/", **changes})

    def fails(self, **changes: Any) -> None:
        with pytest.raises(ValidationError) as error:
            self.settings(**changes)
        assert "tok" not in str(error.value)


class TestSecrets:
    """What nobody may read in a log, a page or a traceback."""

    SECRET: dict[str, Any] = {  # noqa: RUF012
        "secret": "hidden-1",
        "previous_secrets": ["hidden-2"],
        "headers": {"Authorization": "Bearer hidden-3"},
    }

    @pytest.mark.parametrize(
        "answer",
        [Reply(401), Reply(302), Reply(410), Reply(500), CloseHalfWay(b"hidden-4\r\n\r\n"), CloseHalfWay()],
        ids=str,
    )
    def test_errors(self, receiver: Receiver, make: MakeSink, answer: Answer) -> None:
        """An error says what is wrong, with the scheme, host and port of the receiver, and no more of it."""
        url = receiver.url.replace("//", "//hidden-5:hidden-6@") + "/hidden-7?token=hidden-8"
        sink = make(endpoint_url=url, **self.SECRET)
        receiver.plan(answer)
        window = fill(sink, events(1))
        with pytest.raises((SinkRefused, SinkUnavailable, PartitionStopped)) as error:
            deliver(sink, window)
        assert "hidden" not in "".join(traceback.format_exception(error.value))
        assert receiver.url.removesuffix("/hook") in str(error.value)

    def test_representations(self, make: MakeSink) -> None:
        """Neither settings nor sink show the secrets."""
        settings = WebhookSettings.model_validate(
            {"endpoint_url": "https://hidden-5:hidden-6@hooks.example/hidden-7", **self.SECRET}
        )
        sink = WebhookSink(settings)
        shown = (repr(settings), str(settings), settings.model_dump_json(), repr(sink))
        assert not [text for text in shown if "hidden" in text]


def test_registered() -> None:
    """The configuration knows the type; its settings travel between processes."""
    settings = SINKS["webhook"].model_validate({"endpoint_url": "https://hooks.example/"})
    assert isinstance(build(pickle.loads(pickle.dumps(settings))), WebhookSink)


def test_nothing_accepted_is_nothing_sent_twice(receiver: Receiver, make: MakeSink) -> None:
    """A payload that was delivered whole is not sent again by a further call."""
    sink = make()
    window = fill(sink, events(2))
    first = sink.deliver(window.manifest, window.payload)
    manifest: Manifest = window.manifest
    assert sink.deliver(manifest, window.payload) == first
    assert len(receiver.requests) == 1
