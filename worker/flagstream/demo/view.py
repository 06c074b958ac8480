"""What a person sees while the demo runs: a live picture on a terminal, elsewhere lines for a log."""

import errno
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from flagstream.demo.watch import Part, Sight

HEADINGS = {
    "sent": "ingest topic",
    "enriched": "enriched",
    "dropped": "dropped",
    "dead": "dead letters",
    "exported": "exported",
}
LINES_BUT_WINDOWS = 23
"""Lines of the live picture without its windows, at 80 columns and with a sample of the usual length."""
LINE_SECONDS = 1.0
SAMPLE_SECONDS = 5.0
INDENT = " " * 10
STOPPING = "stopping: the last events are on their way"
DEAD_SHOWN = 160
"""Characters of a dead letter in a line of the log."""


class Output(Console):
    """Standard output, which may lose its reader."""

    def on_broken_pipe(self) -> None:
        """Raise an error when nobody reads any more (``| head``), after which the worker ends in order. rich
        would end the process in the middle of the event loop.
        """
        raise BrokenPipeError(errno.EPIPE, "nobody reads standard output")


class View(Protocol):
    """Shows what is to be seen, several times a second; ``last``: it is the end, hold nothing back."""

    def show(self, sight: Sight, *, last: bool = False) -> None: ...
    def stopping(self) -> None: ...
    def close(self) -> None: ...


class Screen:
    """Draws a live picture on a terminal."""

    def __init__(self, console: Console, title: str) -> None:
        self._console = console
        self._title = title
        self._hint = "Ctrl-C ends it"
        self._live = Live(console=console, auto_refresh=False)
        self._live.start()

    def show(self, sight: Sight, *, last: bool = False) -> None:
        self._hint = "" if last else self._hint
        self._live.update(self._picture(sight), refresh=True)

    def stopping(self) -> None:
        self._hint = STOPPING

    def close(self) -> None:
        self._live.stop()

    def _picture(self, sight: Sight) -> RenderableType:
        head = Text.assemble(
            ("flagstream demo", "bold"), f"   {sight.seconds:4.0f} s   ", (self._hint, "yellow"), no_wrap=True
        )
        room = max(2, min(8, self._console.height - LINES_BUT_WINDOWS))
        return Group(
            head,
            Text(self._title, style="dim", no_wrap=True, overflow="ellipsis"),
            "",
            _flow(sight),
            "",
            _windows(sight, room),
            "",
            Text.assemble(
                ("last dead letter  ", "bold"), (sight.dead or "-", "red"), no_wrap=True, overflow="ellipsis"
            ),
            "",
            _sample(sight),
            "",  # where the terminal writes ^C; at the end of a full line it would push the picture up
        )


class Lines:
    """Plain lines, one a second and one for each window, for an output that is not a terminal."""

    def __init__(self, console: Console, title: str) -> None:
        self._console = console
        self._shown = 0
        self._line_due = self._sample_due = LINE_SECONDS
        self._say("flagstream demo; Ctrl-C ends it")
        self._say(title)

    def show(self, sight: Sight, *, last: bool = False) -> None:
        if sight.seconds < self._line_due and not last:
            return
        self._line_due = sight.seconds + LINE_SECONDS
        self._say(f"{sight.seconds:6.1f} s  {_totals(sight)}")
        for new in sight.stored[self._shown :]:
            self._say(f"{INDENT}{sight.noun} {new.name}  {new.events:,} events, {new.size:,} bytes")
        self._shown = len(sight.stored)
        if sight.sample and sight.seconds >= self._sample_due:
            self._sample_due = sight.seconds + SAMPLE_SECONDS
            self._say(f"{INDENT}event in   {_json(sight.sample.before, ',', '').plain}")
            self._say(f"{INDENT}event out  {_json(sight.sample.after, ',', '').plain}")
            if sight.dead:
                self._say(f"{INDENT}last dead letter  {sight.dead[:DEAD_SHOWN]}")

    def stopping(self) -> None:
        self._say(f"{INDENT}{STOPPING}")

    def close(self) -> None:
        """Release nothing: lines hold nothing."""

    def _say(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def view(console: Console, title: str) -> View:
    """Return the view that fits where standard output goes."""
    return Screen(console, title) if console.is_terminal else Lines(console, title)


def _totals(sight: Sight) -> str:
    totals, rates = sight.totals, sight.rates
    return (
        f"in {totals['sent']:,} ({rates['sent']:.0f}/s)  "
        f"enriched {totals['enriched']:,} ({rates['enriched']:.0f}/s)  "
        f"dropped {totals['dropped']:,}  dead letters {totals['dead']:,}  "
        f"exported {totals['exported']:,} in {len(sight.stored):,} {sight.noun}s"
    )


def _flow(sight: Sight) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column("")
    for heading in HEADINGS.values():
        table.add_column(heading, justify="right", header_style="bold cyan")
    table.add_row("events", *(f"{sight.totals[name]:,}" for name in HEADINGS), style="bold")
    table.add_row("per second", *(_rate(sight.rates[name]) for name in HEADINGS))
    return table


def _rate(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 or rate == 0 else f"{rate:.1f}"


def _windows(sight: Sight, room: int) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column(
        f"windows delivered, each {_a(sight.noun)}: {len(sight.stored):,}",
        header_style="bold",
        no_wrap=True,
    )
    table.add_column("events", justify="right", header_style="bold")
    table.add_column("bytes", justify="right", header_style="bold")
    newest = sight.stored[-room:]
    for each in newest:
        # the topic's folder is the same for all
        table.add_row(each.name.partition("/")[2], f"{each.events:,}", f"{each.size:,}")
    for _ in range(room - len(newest)):
        table.add_row("")
    return table


def _a(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def _sample(sight: Sight) -> RenderableType:
    if sight.sample is None:
        return Text("an event, before and after: none yet", style="dim")
    grid = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row("in", _json(sight.sample.before, ", ", "yellow"))
    grid.add_row("out", _json(sight.sample.after, ", ", "bold green"))
    return Group(Text(f"event {sight.sample.sequence:,}, before and after", style="bold"), grid)


def _json(parts: list[Part], separator: str, changed: str) -> Text:
    fields = (Text(part.text, changed if part.changed else "") for part in parts)
    return Text.assemble("{", Text(separator).join(fields), "}")
