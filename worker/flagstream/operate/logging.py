"""The worker's own log: one event name a fact, as JSON or for people, always on standard error.

Standard output belongs to the log sink. Everything that would write to standard error goes through one
:class:`LogWriter`: structlog, the standard library's loggers, warnings, and errors that nothing caught.
"""

import atexit
import logging
import os
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any, Literal, NoReturn

import structlog

from flagstream.operate.log_writer import LogWriter

log = structlog.get_logger(__name__)

Format = Literal["auto", "json", "console"]
Level = Literal["debug", "info", "warning", "error"]

LEVELS: Mapping[Level, int] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


class _Lines:
    """What structlog calls at the end of its chain: any level is one line."""

    def __init__(self, writer: LogWriter) -> None:
        self.msg = writer.put
        self.debug = self.info = self.warning = self.error = self.critical = self.msg


class _Handler(logging.Handler):
    """What the standard library's loggers write to. Never raises, where its base would print a trace."""

    def __init__(self, writer: LogWriter) -> None:
        super().__init__()
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._writer.put(self.format(record))
        except Exception:
            self._writer.lose()


class _Renderer:
    """Renders one line, and masks the secrets that are known in it, whoever wrote them there: a trace ends
    with the text of a library's error. A line that cannot be made costs itself, not the work that logs it.
    """

    def __init__(self, renderer: Any, mask: Callable[[str], str]) -> None:
        self._renderer = renderer
        self._mask = mask

    def __call__(self, logger: Any, method: str, event: structlog.typing.EventDict) -> str:
        name = event.get("event")
        try:
            return self._mask(str(self._renderer(logger, method, event)))
        except Exception as error:
            log.error("log_line_unreadable", of=str(name), error=type(error).__name__)
            raise structlog.DropEvent from error


def configure(format: Format, level: Level, mask: Callable[[str], str] = str) -> LogWriter:
    """Send structlog's and the standard library's messages the same way. Called once, before anything else
    starts.

    ``format`` "auto" is "console" on a terminal and "json" elsewhere; ``level`` is the lowest level that is
    written; ``mask`` takes secrets out of a line. Returns the writer of the lines, for a caller that closes
    the stream.
    """
    writer = LogWriter(sys.stderr)
    console = format == "console" or (format == "auto" and sys.stderr.isatty())
    renderer = _Renderer(
        # Its default shows the local variables of every frame, and secrets are among them.
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        if console
        else structlog.processors.JSONRenderer(),
        mask,
    )
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if not console:
        shared.append(structlog.processors.format_exc_info)
    least = LEVELS[level]
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(least),
        logger_factory=lambda *_: _Lines(writer),
        cache_logger_on_first_use=True,
    )
    handler = _Handler(writer)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    # Libraries stay at warnings even for "debug": below it some log headers and addresses with secrets.
    logging.basicConfig(handlers=[handler], level=max(least, logging.WARNING), force=True)
    logging.captureWarnings(True)
    _catch_the_uncaught()
    atexit.register(writer.flush)
    _writers.append(writer)
    return writer


_writers: list[LogWriter] = []
"""What :func:`configure` made; one in a worker."""


def lines_lost() -> int:
    """Return how many lines of the log could not be written so far."""
    return sum(writer.lost for writer in _writers)


def end_process(code: int) -> NoReturn:
    """End the process now, without waiting for its threads: a call that hangs has one. What is queued for
    the log is written for at most a second. From any thread.
    """
    for writer in _writers:
        writer.flush()
    os._exit(code)


def _catch_the_uncaught() -> None:
    """Python prints what nothing caught to standard error itself, and would wait there for a full pipe."""

    def in_thread(found: threading.ExceptHookArgs) -> None:
        name = found.thread.name if found.thread is not None else ""
        log.critical("thread_died", thread=name, exc_info=found.exc_value)

    def unraisable(found: "sys.UnraisableHookArgs") -> None:
        log.error("error_ignored", reason=found.err_msg or "", exc_info=found.exc_value)

    threading.excepthook = in_thread
    sys.unraisablehook = unraisable
