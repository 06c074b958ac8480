"""What is sent and read, which connections are used, and how failures are put."""

import gzip
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from flagstream.http import connecting
from flagstream.http.address import parse
from flagstream.http.client import IDLE_SECONDS, OLDEST_SECONDS, HttpClient
from flagstream.http.failures import HttpError, HttpRefused, HttpUnavailable, TooLarge
from tests.support.echoing import answering
from tests.support.receiver import CloseHalfWay, Hang, Receiver, Reply, Request, receiving
from tests.support.swallowing import swallowing

CANARY = "hunter2"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the machine's environment says."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def client(url: str, timeout: float = 10.0, **more: object) -> HttpClient:
    return HttpClient(parse(url), connect_timeout=5.0, timeout=timeout, **more)  # type: ignore[arg-type]


def status(client: HttpClient, *, fresh: bool = False) -> int:
    with client.request("POST", "/x", [], b"body", fresh=fresh) as response:
        response.skip(1 << 16)
        return response.status


def body(client: HttpClient, most: int = 1000) -> bytes:
    with client.request("GET", "/x", []) as response:
        return response.read(most)


class TestConnections:
    """Which connection a request goes over."""

    def test_one_that_ended_without_a_word(self, receiver: Receiver) -> None:
        """A failure on a kept connection before any byte of an answer is repeated on a new one."""
        kept = client(receiver.url)
        assert status(kept) == 204
        receiver.plan(CloseHalfWay())
        assert status(kept) == 204
        assert [request.connection for request in receiver.requests] == [0, 0, 1]

    def test_one_that_is_silent(self, receiver: Receiver) -> None:
        """No answer in time counts as such a failure; the other kept connections are not tried one by one."""
        kept = client(receiver.url, timeout=1.0)
        with ExitStack() as requests:  # under way at the same time
            for _ in range(8):
                requests.enter_context(kept.request("POST", "/x", [], b"")).skip(1)
        assert receiver.connections == 8

        receiver.answer = lambda request: Hang() if request.connection < 8 else Reply()
        assert status(kept) == 204
        assert status(kept) == 204
        assert [request.connection for request in receiver.requests[8:]] == [0, 8, 8]

    def test_a_new_connection_that_fails_is_a_failure(self, receiver: Receiver) -> None:
        """It is not repeated here."""
        receiver.plan(CloseHalfWay())
        with pytest.raises(HttpUnavailable):
            status(client(receiver.url))
        assert len(receiver.requests) == 1

    def test_the_new_connection_fails_too(self, receiver: Receiver) -> None:
        """Then it is a failure."""
        kept = client(receiver.url)
        status(kept)
        receiver.plan(CloseHalfWay(), CloseHalfWay())
        with pytest.raises(HttpUnavailable):
            status(kept)

    def test_an_answer_that_began_is_not_asked_for_again(self, receiver: Receiver) -> None:
        """The other side is there, and has seen the request."""
        kept = client(receiver.url)
        status(kept)
        receiver.plan(CloseHalfWay(b"HTTP/1.1 20"))
        with pytest.raises(HttpUnavailable):
            status(kept)
        assert len(receiver.requests) == 2

    def test_age(self, receiver: Receiver) -> None:
        """A connection takes requests until it is too old; the next one is looked up again."""
        now = 0.0
        kept = client(receiver.url, clock=lambda: now)
        status(kept)
        now = OLDEST_SECONDS
        status(kept)
        now += 1
        status(kept)
        assert [request.connection for request in receiver.requests] == [0, 0, 1]

    def test_idle(self, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
        """One that nothing was sent over for a while is not trusted."""
        kept = client(receiver.url)
        status(kept)
        then = time.monotonic
        monkeypatch.setattr(time, "monotonic", lambda: then() + IDLE_SECONDS + 1)
        status(kept)
        assert [request.connection for request in receiver.requests] == [0, 1]

    def test_a_fresh_one_is_made_when_asked_for(self, receiver: Receiver) -> None:
        """The response says over which kind it came; the new connection is kept."""
        kept = client(receiver.url)
        answers = []
        for fresh in (False, False, True, False):
            with kept.request("POST", "/x", [], b"", fresh=fresh) as response:
                response.skip(1)
                answers.append(response.fresh)
        assert answers == [True, False, True, False]
        assert [request.connection for request in receiver.requests] == [0, 0, 1, 1]

    def test_none_is_made_by_a_client_that_was_closed(self, receiver: Receiver) -> None:
        """What is under way then is not sent again."""
        kept = client(receiver.url)
        status(kept)

        def close_and_answer(_: Request) -> CloseHalfWay:
            kept.close()
            return CloseHalfWay()

        receiver.answer = close_and_answer
        with pytest.raises(HttpUnavailable):
            status(kept)
        assert len(receiver.requests) == 2


class TestAddresses:
    """A name can have several addresses."""

    def test_swallowing_addresses(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Two addresses swallow packets and one is good: it is reached, and tried first from then on."""
        with receiving() as receiver:
            port = receiver.port
            found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"127.0.0.{n}", port)) for n in (2, 3, 1)]
            monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
            with swallowing("127.0.0.2", port), swallowing("127.0.0.3", port):
                asking = client(f"http://flags.example:{port}/", timeout=2.0, keep=False)
                assert status(asking) == 204
                assert asking.resolve()[0] == "127.0.0.1"

    def test_the_time_for_the_answer_begins_with_the_connection(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """However long it took to connect, the answer has its whole time."""
        with receiving() as receiver:
            port = receiver.port
            found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"127.0.0.{n}", port)) for n in (2, 1)]
            monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
            with swallowing("127.0.0.2", port):
                monkeypatch.setattr(connecting, "STAGGER", 1.2)  # so long does connecting take
                assert status(client(f"http://hook.example:{port}/", timeout=1.0)) == 204

    def test_an_address_that_does_not_answer_goes_last(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It takes connections and nothing more; the next request goes elsewhere."""
        with receiving() as receiver, socket.socket() as deaf:
            port = receiver.port
            deaf.bind(("127.0.0.2", port))
            deaf.listen(8)
            found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"127.0.0.{n}", port)) for n in (2, 1)]
            monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
            asking = client(f"http://hook.example:{port}/", timeout=1.0)
            with pytest.raises(HttpUnavailable, match="no answer within"):
                status(asking)
            assert status(asking) == 204

    def test_no_connection(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The message names the time and the setting."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        with swallowing("127.0.0.1", port):
            asking = HttpClient(
                parse(f"http://127.0.0.1:{port}"), connect_timeout=0.2, timeout=9, names=("patience", "other")
            )
            with pytest.raises(HttpUnavailable, match=r"no connection within 0\.2 s \(patience\)"):
                status(asking)


class TestHeaders:
    """What is sent beside the caller's headers."""

    def test_own_ones(self, receiver: Receiver) -> None:
        """The client adds the host, and user and password of the address."""
        status(client(receiver.url.replace("//", "//user:pass@")))
        [request] = receiver.requests
        assert request.header("Host") == f"127.0.0.1:{receiver.port}"
        assert (request.header("Authorization") or "").startswith("Basic ")

    def test_the_callers_count(self, receiver: Receiver) -> None:
        """Each is sent once."""
        mine = [("HOST", "flags.example"), ("authorization", "Bearer x")]
        with client(receiver.url.replace("//", "//user:pass@")).request("GET", "/", mine):
            pass
        [request] = receiver.requests
        assert request.header("Host") == "flags.example"
        assert request.header("Authorization") == "Bearer x"


class TestBodies:
    """What comes back."""

    @pytest.mark.parametrize("members", [1, 2])
    def test_gzip(self, receiver: Receiver, members: int) -> None:
        """It is unpacked, also from several members."""
        packed = b"".join(gzip.compress(b"text") for _ in range(members))
        receiver.plan(Reply(200, {"Content-Encoding": "gzip"}, packed))
        assert body(client(receiver.url)) == b"text" * members

    def test_plain(self, receiver: Receiver) -> None:
        """The body comes as it is."""
        receiver.plan(Reply(200, {}, b"text"))
        assert body(client(receiver.url)) == b"text"

    @pytest.mark.parametrize(
        ("coding", "content", "words"),
        [
            ("gzip", b"text", "not valid gzip"),
            ("gzip", gzip.compress(b"text" * 100, mtime=0)[:-9], "breaks off"),
            ("br", b"text", "compressed in a way"),
            (CANARY, b"text", "compressed in a way"),
        ],
    )
    def test_broken(self, receiver: Receiver, coding: str, content: bytes, words: str) -> None:
        """Half a document is none."""
        receiver.plan(Reply(200, {"Content-Encoding": coding}, content))
        with pytest.raises(HttpUnavailable, match=words) as caught:
            body(client(receiver.url))
        assert CANARY not in str(caught.value)

    @pytest.mark.parametrize("coding", ["identity", "gzip"])
    def test_too_large(self, receiver: Receiver, coding: str) -> None:
        """An answer is too large also when only its content is: a small answer may unpack to gigabytes."""
        content = b"x" * 10_000_000
        packed = gzip.compress(content) if coding == "gzip" else content
        receiver.plan(Reply(200, {"Content-Encoding": coding}, packed))
        with pytest.raises(TooLarge, match="more than 1000 bytes"):
            body(client(receiver.url))


class TestFailures:
    """Each is one of two kinds, with the worker's own words."""

    @pytest.mark.parametrize(
        "answer",
        [
            b"",
            b"\x00\x01\x02\r\n\r\n",
            f"HTTP/1.1 200 {CANARY}\r\nBad Header {CANARY}\r\n\r\n".encode(),
            f"HTTP/1.1 abc {CANARY}\r\n\r\n".encode(),
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 2_000_000,
        ],
        ids=["nothing", "bytes", "header", "status", "chunks", "length", "endless head"],
    )
    def test_garbage(self, answer: bytes) -> None:
        """What does not speak HTTP passes by itself, and is not quoted."""
        with serving(answer) as url, pytest.raises(HttpUnavailable) as caught:
            body(client(url))
        assert CANARY not in str(caught.value)

    @pytest.mark.parametrize(
        "value", [f"{CANARY}\n", f"{CANARY}\r\nX: y", f"{CANARY}\0", f"{CANARY}ж", f" {CANARY}"]
    )
    def test_a_header_that_cannot_be_sent(self, receiver: Receiver, value: str) -> None:
        """A person must act; the header is not quoted."""
        with (
            pytest.raises(HttpRefused, match="a header holds characters") as caught,
            client(receiver.url).request("GET", "/", [("Authorization", value)]),
        ):
            pass
        assert CANARY not in str(caught.value)
        assert receiver.requests == []

    @pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
    def test_certificates_that_cannot_be_read(
        self, monkeypatch: pytest.MonkeyPatch, variable: str, tmp_path: object
    ) -> None:
        """That is a failure of the request, and names the variable, not the file. It is read again each
        time.
        """
        monkeypatch.setenv(variable, f"{tmp_path}/{CANARY}")
        asking = client("https://127.0.0.1:1/")
        with pytest.raises(HttpError) as caught:
            status(asking)
        assert CANARY not in str(caught.value)

    def test_a_file_without_certificates(self, monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
        """Half-written or another file."""
        path = f"{tmp_path}/{CANARY}"
        with open(path, "w") as file:
            file.write("none")
        monkeypatch.setenv("SSL_CERT_FILE", path)
        with (
            socket.create_server(("127.0.0.1", 0)) as listener,
            pytest.raises(HttpRefused, match="SSL_CERT_FILE names cannot be read") as caught,
        ):
            status(client(f"https://127.0.0.1:{listener.getsockname()[1]}/"))
        assert CANARY not in str(caught.value)


class TestProxies:
    """The client uses the proxies of the environment."""

    @pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
    def test_requests_go_through_it(
        self, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        """The client uses the proxy with its user and password."""
        monkeypatch.setenv(name, receiver.url.replace("//", f"//user:{CANARY}@"))
        assert status(client("http://flags.example/")) == 204
        [request] = receiver.requests
        assert request.path == "http://flags.example/x"
        assert request.header("Proxy-Authorization") is not None
        assert request.header("Host") == "flags.example"

    def test_hosts_that_are_excepted(self, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
        """NO_PROXY is honoured."""
        monkeypatch.setenv("HTTP_PROXY", f"http://user:{CANARY}@127.0.0.1:1")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        assert status(client(receiver.url)) == 204

    @pytest.mark.parametrize(
        "text", [f"socks5://{CANARY}@h", f"https://{CANARY}@h", f"http://{CANARY}:port", "://"]
    )
    def test_one_that_cannot_be_used(self, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
        """Each request says so, and names the variable, not its value."""
        monkeypatch.setenv("HTTPS_PROXY", text)
        with pytest.raises(HttpRefused, match="HTTPS_PROXY") as caught:
            status(client("https://flags.example/"))
        assert CANARY not in str(caught.value)

    def test_tls_through_a_tunnel(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The certificate is judged for the host, not for the proxy."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            seen: list[bytes] = []

            def serve() -> None:
                connection, _ = listener.accept()
                with connection:
                    seen.append(connection.recv(65536))
                    connection.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
                    seen.append(connection.recv(65536))

            thread = threading.Thread(target=serve, daemon=True)
            thread.start()
            proxy = f"http://user:{CANARY}@127.0.0.1:{listener.getsockname()[1]}"
            monkeypatch.setenv("HTTPS_PROXY", proxy)
            with pytest.raises(HttpUnavailable, match="no TLS"):
                status(client("https://flags.example/"))
            thread.join()
        assert seen[0].startswith(b"CONNECT flags.example:443 HTTP/1.1\r\n")
        assert b"Proxy-Authorization: Basic " in seen[0]
        assert seen[1].startswith(b"\x16\x03")  # TLS, handshake
        assert b"flags.example" in seen[1]  # the name that the certificate has to have

    @pytest.mark.parametrize(("code", "kind"), [(407, HttpRefused), (502, HttpUnavailable)])
    def test_a_tunnel_that_is_refused(
        self, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[HttpError]
    ) -> None:
        """The status is reported in the standard's words, not in the proxy's."""
        with serving(f"HTTP/1.1 {code} {CANARY}\r\nContent-Length: 0\r\n\r\n".encode()) as url:
            monkeypatch.setenv("HTTPS_PROXY", url)
            with pytest.raises(kind, match=f"the proxy answers {code} [PB]") as caught:
                status(client("https://flags.example/"))
        assert CANARY not in str(caught.value)


@contextmanager
def serving(answer: bytes) -> Iterator[str]:
    """A server that reads a little and answers these bytes, whatever was asked."""
    with answering(lambda _: answer) as port:
        yield f"http://127.0.0.1:{port}"
