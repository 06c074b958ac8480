"""Lines of the log that are lost are reported elsewhere."""

from flagstream.operate.lost_lines import SHOWN_SECONDS, LostLines


def test_lost_lines_are_a_problem_for_a_while() -> None:
    """The problem says how many lines were lost since it began."""
    lost, now = [5], [0.0]
    lines = LostLines(lambda: lost[0], lambda: now[0])

    assert "5 lines" in next(lines.problems()).text
    now[0], lost[0] = 30.0, 9
    lines.look()
    assert "9 lines" in next(lines.problems()).text
    now[0] = 31 + SHOWN_SECONDS
    assert list(lines.problems()) == []
    lost[0] = 10
    [problem] = lines.problems()
    assert problem.text.startswith("1 lines of the log are lost")
    assert "make room" in problem.text
