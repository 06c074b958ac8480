"""The Faust app of the process: it runs the agents and the web server.

Faust gives the life cycle; its own Kafka clients stay off (:class:`Boot`).
"""

import asyncio
import socket
from collections.abc import AsyncIterable, Awaitable, Callable, Iterator, Sequence
from typing import Any

import faust
from faust.app.base import BootStrategy
from faust.types import ChannelT

from flagstream.chunk import Chunk
from flagstream.config.settings import WebSettings
from flagstream.operate.tasks import TaskEnded

CHANNEL_CHUNKS = 2
"""Chunks that wait for an agent: one more than it works on, so that it never waits for the next."""


class Boot(BootStrategy):
    """Starts agents, services and web, but none of Faust's Kafka clients."""

    enable_kafka = False
    enable_sensors = False


class App(faust.App):
    """Faust's app without folders for tables, as the worker has none."""

    BootStrategy = Boot

    async def on_first_start(self) -> None:
        """Prepare nothing: there are no tables and there is no recovery."""


def build_app(name: str, web: WebSettings) -> App:
    """Return an app with a web server as ``web`` says, and without any agent."""
    addresses = addresses_of(web.host)
    return App(
        name,
        broker="kafka://",
        autodiscover=False,
        topic_disable_leader=True,
        web_enabled=web.enabled,
        web_bind=addresses,
        web_port=web.port or free_port(addresses),
        web_router_enabled=False,
        web_tables_enabled=False,
    )


def add_agent(
    app: App,
    name: str,
    body: Callable[[AsyncIterable[Chunk]], Awaitable[None]],
    fail: Callable[[BaseException], None],
) -> ChannelT[Chunk]:
    """Make an agent of ``body`` and return the channel that feeds it.

    However the body ends, ``fail`` is called: Faust would start it again after the chunk, and its records
    would be lost.
    """
    channel: ChannelT[Chunk] = app.channel(maxsize=CHANNEL_CHUNKS)

    async def agent(chunks: AsyncIterable[Chunk]) -> None:
        try:
            await body(chunks)
        except asyncio.CancelledError:
            fail(TaskEnded(f"the agent {name} was cancelled"))
            raise
        except BaseException as error:
            fail(error)
            raise
        fail(TaskEnded(f"the agent {name} returned"))

    app.agent(channel, name=name)(agent)
    return channel


def tasks_of_faust() -> Iterator[asyncio.Task[Any]]:
    """Yield the tasks of the running loop that Faust made: agents and their supervisors."""
    for task in asyncio.all_tasks():
        frame = getattr(task.get_coro(), "cr_frame", None)
        if frame is not None and frame.f_globals["__name__"].partition(".")[0] in ("faust", "mode"):
            yield task


def addresses_of(host: str) -> list[str]:
    """Return the addresses to listen on for the setting ``web.host``.

    ``*`` is every family that this host can bind: a kernel without IPv6 refuses ``::``, and its absence must
    not keep the pages from the other family.
    """
    if host != "*":
        return [host]
    return [address for address in ("0.0.0.0", "::") if _can_bind(address)] or ["0.0.0.0"]


def _can_bind(address: str) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def free_port(addresses: Sequence[str]) -> int:
    """Return a port that is free at the first address; the others almost always have it free, too."""
    family, _, _, _, place = socket.getaddrinfo(
        addresses[0], 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    with socket.socket(family) as probe:
        probe.bind(place)
        return int(probe.getsockname()[1])
