"""A server that quotes what it was asked, for tests that nothing of it comes to light."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

Answer = Callable[[bytes], bytes]


def echo(status: str) -> Answer:
    """Return an answer that quotes the whole request: in its reason, a header and its body."""

    def answer(request: bytes) -> bytes:
        line = request.replace(b"\r\n", b" ")
        head = b"HTTP/1.1 " + status.encode() + b" " + line[:900] + b"\r\nX-Echo: " + line[:900]
        head += b"\r\nLocation: http://127.0.0.1/" + line[:200].replace(b" ", b"/")
        return head + b"\r\nContent-Length: " + str(len(request)).encode() + b"\r\n\r\n" + request

    return answer


@contextmanager
def answering(answer: Answer) -> Iterator[int]:
    """A server that answers all requests so, then closes the connection; its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection, suppress(OSError):
                    connection.settimeout(5)
                    connection.sendall(answer(connection.recv(1 << 20)))
                    connection.shutdown(socket.SHUT_WR)
                    connection.recv(1 << 20)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()
