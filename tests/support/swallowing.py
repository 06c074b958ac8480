"""Addresses that swallow packets: nobody takes a connection there, and nobody refuses one."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def swallowing(host: str, port: int) -> Iterator[None]:
    """Let no connection to ``host`` (one of 127.0.0.x) and ``port`` come about: the queue of a listener is
    full, and the kernel drops what comes beyond it.
    """
    family = socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(0)
        queued = []
        full = False
        try:
            while not full:
                one = socket.socket(family)
                queued.append(one)
                one.settimeout(0.2)
                try:
                    one.connect((host, port))
                except TimeoutError:
                    full = len(queued) > 1  # the first one fits; it only took its time
            yield
        finally:
            for one in queued:
                one.close()
