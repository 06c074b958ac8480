"""The last word of the demo: what went in, what came out, and whether what was exported holds it."""

from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from flagstream.demo.ledger import Audit, Ledger
from flagstream.demo.samples import Fate
from flagstream.demo.watch import Sight
from flagstream.errors import ExitCode

EXAMPLES = 5
"""Sequences that are named of each kind of mistake."""
LONG_STALL = 10.0
"""Seconds after which a group may give a member up that is not heard of."""


def summarize(
    console: Console, folder: Path, sight: Sight, ledger: Ledger, audit: Audit, code: ExitCode, stall: float
) -> bool:
    """Print the summary; return whether all is as it has to be. ``stall``: seconds in which nothing ran."""

    def say(line: str = "", style: str | None = None) -> None:
        console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)

    totals = sight.totals
    say()
    say(f"After {sight.seconds:.0f} seconds", "bold")
    for count, what in (
        (totals["sent"], "records sent to the ingest topic"),
        (totals["enriched"], "enriched"),
        (totals["dropped"], "dropped, their flags are not tracked"),
        (totals["dead"], "dead letters, broken on purpose"),
        (totals["exported"], f"exported, in {audit.files:,} {sight.noun}s"),
    ):
        say(f"  {count:>9,}  {what}")
    say()
    say(f"The {sight.noun}s, read back: {audit.events:,} events compared with what was sent", "bold")
    findings = list(_findings(audit, sight, ledger))
    for right, finding in findings:
        say(f"  {'ok    ' if right else 'WRONG '} {finding}", "green" if right else "bold red")
    right = all(right for right, _ in findings)
    if not right and stall > LONG_STALL:
        say(f"  The demo stood still for {stall:.0f} seconds, and its broker gave the worker up. As that")
        say("  broker forgets what transactions committed, the worker started over. A Kafka does not forget.")
    say()
    say("Have a look", "bold")
    say(f"  gzip -dc {folder}/files/*/*/*.gz | head -3")
    say(f"  less {folder}/worker.log")
    if code != ExitCode.OK:
        say(f"The worker ended with exit code {int(code)} ({code.name}); its log says why.", "bold red")
    return right


def _findings(audit: Audit, sight: Sight, ledger: Ledger) -> Iterator[tuple[bool, str]]:
    yield (
        not audit.foreign,
        _finding(
            "each came from the ingest topic: user, flag, value as they were sent",
            "were not sent as they are, or should have been dropped",
            audit.foreign,
        ),
    )
    yield not audit.twice, _finding("none is there twice", "are there twice", audit.twice)
    yield (
        not audit.missing,
        _finding("every event that was sent for a tracked flag is there", "are missing", audit.missing),
    )
    for outcome, fate, what in (
        ("dropped", Fate.DROP, "events of untracked flags were dropped"),
        ("dead", Fate.DEAD, "broken records became dead letters"),
    ):
        found, sent = sight.totals[outcome], ledger.count(fate)
        yield found == sent, f"{found:,} of {sent:,} {what}"


def _finding(right: str, wrong: str, sequences: list[object] | list[int]) -> str:
    if not sequences:
        return right
    return f"{len(sequences):,} {wrong}: sequence {', '.join(map(str, sequences[:EXAMPLES]))}"
