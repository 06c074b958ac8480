"""Requests go only where they may, and none goes on for ever."""

import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flagstream.errors import SinkRefused, SinkUnavailable
from flagstream.sinks.webhook.http import GuardedClient, is_public
from tests.support.receiver import CloseHalfWay, Hang, Receiver, Reply, Trickle, receiving
from tests.support.swallowing import swallowing

FORBIDDEN = {
    "0.0.0.0": "unspecified",
    "10.1.2.3": "private",
    "100.64.0.1": "carrier-grade NAT",
    "127.0.0.1": "loopback",
    "127.255.255.254": "loopback",
    "169.254.169.254": "link-local: metadata of clouds",
    "172.16.0.1": "private",
    "192.168.1.1": "private",
    "198.18.0.1": "benchmarks",
    "224.0.0.1": "multicast",
    "240.0.0.1": "reserved",
    "255.255.255.255": "broadcast",
    "::": "unspecified",
    "::1": "loopback",
    "::7f00:1": "IPv4-compatible",
    "::ffff:127.0.0.1": "IPv4-mapped loopback",
    "::ffff:10.0.0.1": "IPv4-mapped private",
    "64:ff9b::a00:1": "NAT64 of a private address",
    "2002:7f00:1::": "6to4 of loopback",
    "2001:db8::1": "documentation",
    "fc00::1": "unique local",
    "fd00:ec2::254": "metadata of a cloud",
    "fe80::1": "link-local",
    "fe80::1%eth0": "link-local with its interface",
    "ff02::1": "multicast",
}
PUBLIC = ("8.8.8.8", "172.32.0.1", "::ffff:8.8.8.8", "64:ff9b::808:808", "2606:4700:4700::1111")


def client(url: str, timeout: float = 10.0, *, allow_private: bool = True) -> GuardedClient:
    return GuardedClient(url, allow_private=allow_private, connect_timeout=2.0, timeout=timeout)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets a host's name stand for these addresses, one answer of the resolver after the other."""

    def stand_for(*answers: list[str]) -> None:
        left = list(answers)
        ask = socket.getaddrinfo

        def getaddrinfo(host: str, port: int, *rest: int, **more: int) -> object:
            try:
                ipaddress.ip_address(host)
                return ask(host, port, *rest, **more)
            except ValueError:
                found = left.pop(0) if len(left) > 1 else left[0]
                return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    return stand_for


class TestAddresses:
    """Which addresses a connection may be made to."""

    @pytest.mark.parametrize("address", FORBIDDEN, ids=[f"{a} {why}" for a, why in FORBIDDEN.items()])
    def test_forbidden(self, address: str) -> None:
        """Addresses that lead into our own network, in every disguise."""
        assert not is_public(address)

    @pytest.mark.parametrize("address", PUBLIC)
    def test_public(self, address: str) -> None:
        """The others are allowed."""
        assert is_public(address)

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "127.1", "[::1]"])
    def test_loopback_by_other_names(self, receiver: Receiver, host: str) -> None:
        """However the host is written, what it resolves to is judged, and nothing is connected to."""
        port = receiver.url.split(":")[2].split("/")[0]
        guarded = client(f"http://{host}:{port}/hook", allow_private=False)
        for call in (guarded.resolve, guarded.connect, lambda: guarded.post([], b"")):
            with pytest.raises(SinkRefused, match="allow_private_addresses"):
                call()
        assert receiver.connections == 0

    def test_judged_at_every_connection(self, receiver: Receiver, names: Callable[..., None]) -> None:
        """A name that was public when the sink was opened, and leads elsewhere later, is refused then."""
        names(["8.8.8.8"], ["127.0.0.1"])
        guarded = client(receiver.url.replace("127.0.0.1", "hooks.example"), allow_private=False)
        assert guarded.resolve() == ["8.8.8.8"]
        with pytest.raises(SinkRefused, match=r"hooks\.example \(127\.0\.0\.1\) is not a public address"):
            guarded.post([], b"")
        assert receiver.requests == []

    def test_only_the_judged_address_is_connected_to(
        self, receiver: Receiver, names: Callable[..., None]
    ) -> None:
        """The name is not looked up a second time between judging and connecting."""
        names(["127.0.0.1"], ["192.0.2.1"])
        guarded = client(receiver.url.replace("127.0.0.1", "hooks.example"))
        assert guarded.post([], b"").status == 204
        assert (receiver.requests[0].header("Host") or "").startswith("hooks.example:")

    def test_forbidden_among_public(self, names: Callable[..., None]) -> None:
        """Of several addresses only the public ones are used."""
        names(["10.0.0.1", "8.8.8.8", "127.0.0.1"])
        assert client("http://hooks.example/", allow_private=False).resolve() == ["8.8.8.8"]

    def test_next_address(self, receiver: Receiver, names: Callable[..., None]) -> None:
        """An address that does not answer is not a failure while another one does."""
        names(["127.0.0.2", "127.0.0.1"])
        guarded = client(receiver.url.replace("127.0.0.1", "hooks.example"))
        assert guarded.post([], b"").status == 204

    def test_name_that_is_not_known(self) -> None:
        """A failing resolver passes by itself."""
        with pytest.raises(SinkUnavailable, match=r"cannot resolve nowhere\.invalid"):
            client("http://nowhere.invalid/").resolve()

    def test_proxies_of_the_environment_are_ignored(
        self, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A proxy would resolve the name by itself, past the guard."""
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        assert client(receiver.url).post([], b"").status == 204


class TestRequests:
    """What is sent and what comes back."""

    def test_request(self, receiver: Receiver) -> None:
        """The request has path and query as configured, the headers in order, user and password as basic
        authentication."""
        url = receiver.url.replace("//", "//us%40er:pass@") + "/a%20b?token=1"
        client(url).post([("X-One", "1"), ("X-One", "2")], b"body")
        (request,) = receiver.requests
        assert (request.method, request.path, request.body) == ("POST", "/hook/a%20b?token=1", b"body")
        assert request.header("Authorization") == "Basic dXNAZXI6cGFzcw=="
        assert [value for name, value in request.headers if name == "X-One"] == ["1", "2"]
        assert (request.header("Host") or "").startswith("127.0.0.1:")

    def test_connection_is_kept(self, receiver: Receiver) -> None:
        """One connection serves many requests, whatever was answered."""
        receiver.plan(Reply(200, body=b"taken"), Reply(500, body=b"x" * 1000), Reply(404))
        kept = client(receiver.url)
        assert [kept.post([], b"x" * 100_000).status for _ in range(5)] == [200, 500, 404, 204, 204]
        assert receiver.connections == 1

    def test_long_answer_is_not_read(self, receiver: Receiver) -> None:
        """Nobody looks at an answer's body: a large one costs the connection, not memory."""
        receiver.plan(Reply(200, body=b"x" * 5_000_000))
        guarded = client(receiver.url)
        assert [guarded.post([], b"").status for _ in range(2)] == [200, 204]
        assert receiver.connections == 2

    def test_answer_that_breaks_off_behind_its_head(self, receiver: Receiver) -> None:
        """The head says what became of the request."""
        receiver.plan(CloseHalfWay(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome"))
        assert client(receiver.url).post([], b"").status == 200

    def test_ipv6(self) -> None:
        """A receiver can be at an IPv6 address."""
        with receiving("::1") as receiver:
            assert client(receiver.url).post([], b"").status == 204


class TestFailures:
    """What passes by itself, and when it is given up."""

    @pytest.mark.parametrize(
        "answer",
        [
            CloseHalfWay(),
            CloseHalfWay(b"HTTP/1.1 20"),
            CloseHalfWay(b"HTTP/1.1 200 OK\r\nContent-"),
            CloseHalfWay(b"secret-of-ours\r\n\r\n"),
        ],
        ids=["at once", "in the status", "in the head", "no HTTP"],
    )
    def test_broken_answer(self, receiver: Receiver, answer: CloseHalfWay) -> None:
        """No head, no success; what came is not repeated in the message."""
        receiver.plan(answer)
        with pytest.raises(SinkUnavailable) as error:
            client(receiver.url).post([], b"")
        assert "secret" not in str(error.value)

    @pytest.mark.parametrize("answer", [Hang(), Trickle()], ids=["silence", "a byte now and then"])
    def test_request_has_an_end(self, receiver: Receiver, answer: Hang | Trickle) -> None:
        """A request ends with its time-out, also when each single wait is short."""
        receiver.plan(answer)
        began = time.monotonic()
        with pytest.raises(SinkUnavailable, match=r"no answer within 0\.5 s \(timeout\)"):
            client(receiver.url, timeout=0.5).post([], b"")
        assert 0.5 <= time.monotonic() - began < 10

    def test_no_connection_is_told_from_no_answer(self) -> None:
        """Each error has its limit and the setting."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        guarded = GuardedClient(
            f"http://127.0.0.1:{port}/", allow_private=True, connect_timeout=0.2, timeout=9
        )
        with (
            swallowing("127.0.0.1", port),
            pytest.raises(SinkUnavailable, match=r"no connection within 0\.2 s \(connect_timeout\)"),
        ):
            guarded.post([], b"")

    def test_nobody_listens(self) -> None:
        """A refused connection passes by itself."""
        with pytest.raises(SinkUnavailable, match="refused"):
            client("http://127.0.0.1:1/").post([], b"")

    def test_url_is_shown_without_its_secrets(self) -> None:
        """Messages name scheme, host and port, nothing of user, path and query."""
        guarded = client("http://user:pass@127.0.0.1:1/token1?token=2")
        assert guarded.shown == "http://127.0.0.1:1"
        with pytest.raises(SinkUnavailable) as error:
            guarded.post([("Authorization", "Bearer token3")], b"token4")
        assert not any(word in str(error.value) for word in ("user", "pass", "token"))


class TestTls:
    """Connections use TLS."""

    def test_untrusted_certificate(self, tls_port: int) -> None:
        """A certificate that nobody vouches for needs a person."""
        guarded = client(f"https://localhost:{tls_port}/")
        for call in (guarded.connect, lambda: guarded.post([], b"")):
            with pytest.raises(SinkRefused, match="certificate"):
                call()

    def test_trusted_certificate(
        self, tls_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A private authority is trusted by SSL_CERT_FILE; the certificate is checked against the host's
        name, though the connection is made to its address.
        """
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
        assert client(f"https://localhost:{tls_port}/").post([], b"").status == 204
        client(f"https://localhost:{tls_port}/").connect()
        with pytest.raises(SinkRefused, match=r"127\.0\.0\.1"):
            client(f"https://127.0.0.1:{tls_port}/").connect()

    def test_an_address_that_does_not_begin_with_tls(
        self,
        tls_port: int,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """It takes connections and says nothing: the next address is reached within the same request."""
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
        found = [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, tls_port))
            for address in ("127.0.0.2", "127.0.0.1")
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        with socket.create_server(("127.0.0.2", tls_port)):
            guarded = GuardedClient(
                f"https://localhost:{tls_port}/", allow_private=True, connect_timeout=3.0, timeout=10.0
            )
            assert guarded.post([], b"").status == 204
            assert guarded.resolve()[0] == "127.0.0.1"

    def test_a_new_authority(self, tls_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """An agent replaces the file of trusted certificates: the client need not be made again."""
        trusted = tmp_path / "trusted.pem"
        (tmp_path / "other").mkdir()
        make_certificate(tmp_path / "other")
        trusted.write_bytes((tmp_path / "other" / "certificate.pem").read_bytes())
        monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
        guarded = client(f"https://localhost:{tls_port}/")
        with pytest.raises(SinkRefused, match="certificate") as caught:
            guarded.post([], b"")
        assert caught.value.denied
        trusted.write_bytes((tmp_path / "certificate.pem").read_bytes())
        assert guarded.post([], b"").status == 204

    def test_no_tls_behind_the_port(self, receiver: Receiver) -> None:
        """A receiver that does not speak TLS may be on its way up."""
        with pytest.raises(SinkUnavailable):
            client(receiver.url.replace("http:", "https:")).connect()


@pytest.fixture
def tls_port(tmp_path: Path) -> Iterator[int]:
    """A server with a certificate for localhost that it signed itself; answers 204 to anything."""
    make_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "certificate.pem", tmp_path / "key.pem")
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            try:
                with context.wrap_socket(plain, server_side=True) as stream:
                    if stream.recv(65536):
                        stream.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
            except OSError:
                plain.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def make_certificate(folder: Path) -> None:
    """Return a key and a self-signed certificate for localhost, valid for a day."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
