"""The phases of a partition's export: the table is whole, is what the document says, and is obeyed."""

import re
from pathlib import Path

import pytest

from flagstream.export.phases import DUTIES, FROM_ALL, TABLE, Event, Phase, Phases, UnknownTransition
from flagstream.export.phases import TRANSITIONS as COUNTED
from tests.support.recording import PARTITION

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "how-it-works.md"


def documented() -> tuple[dict[Phase, tuple[bool, bool, bool]], dict[Phase, dict[Event, Phase]]]:
    """The duties and the transitions of each phase, as docs/how-it-works.md has them."""
    section = DOCUMENT.read_text().split("## Phases of a partition's export")[1].split("\n## ")[0]
    duties, table = {}, {}
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 5 and cells[0] in Phase.__members__:
            phase = Phase[cells[0]]
            takes, cuts, delivers = (cell == "yes" for cell in cells[1:4])
            duties[phase] = takes, cuts, delivers
            table[phase] = events(cells[4])
    (everywhere,) = re.findall(r"From every phase but ENDED: (.*)\.\n", section)
    for phase, known in table.items():
        if phase is not Phase.ENDED:
            known.update(events(everywhere))
    return duties, table


def events(text: str) -> dict[Event, Phase]:
    pairs = (pair.split(" → ") for pair in text.split(" · ") if " → " in pair)
    return {Event(event): Phase[phase] for event, phase in pairs}


def test_the_document_has_the_table_of_the_code() -> None:
    """What each phase does, and which event leads where: the same in docs/how-it-works.md."""
    duties, table = documented()

    assert {phase: (d.takes, d.cuts, d.delivers) for phase, d in DUTIES.items()} == duties
    assert table == TABLE


def test_every_phase_can_be_reached_and_left() -> None:
    """An export begins in TAKING_OVER; only ENDED is final."""
    reached, waiting = set(), {Phase.TAKING_OVER}
    while waiting:
        phase = waiting.pop()
        reached.add(phase)
        waiting |= set(TABLE[phase].values()) - reached

    assert reached == set(Phase)
    assert [phase for phase in Phase if not TABLE[phase]] == [Phase.ENDED]
    assert {event for known in TABLE.values() for event in known} == set(Event)
    assert [phase for phase in Phase if not FROM_ALL.keys() <= TABLE[phase].keys()] == [Phase.ENDED]


def test_a_transition_is_counted() -> None:
    """Traces and proofs see which transitions have happened."""
    phases = Phases("test", PARTITION)
    before = COUNTED[Phase.TAKING_OVER, Event.TAKEN_OVER, Phase.EXPORTING]

    assert phases.enter(Event.TAKEN_OVER) is Phase.EXPORTING

    assert phases.phase is Phase.EXPORTING
    assert COUNTED[Phase.TAKING_OVER, Event.TAKEN_OVER, Phase.EXPORTING] == before + 1


@pytest.mark.parametrize(
    ("phase", "event"),
    [(phase, event) for phase in Phase for event in Event if event not in TABLE[phase]],
)
def test_any_other_transition_is_an_error(phase: Phase, event: Event) -> None:
    """It leaves the phase as it is, and is not counted."""
    phases = Phases("test", PARTITION)
    phases.phase = phase
    before = COUNTED.total()

    with pytest.raises(UnknownTransition, match=f"{event.name} in the phase {phase.name}"):
        phases.enter(event)

    assert (phases.phase, COUNTED.total()) == (phase, before)
