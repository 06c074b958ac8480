"""Deliberate faults as data: `*.toml` in this folder."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent
REPOSITORY = FOLDER.parents[1]
EFFECTS = ("loses", "doubles", "leaks", "stops", "corrupts")


@dataclass(frozen=True, slots=True)
class Fault:
    """One change to one file that the tests have to notice.

    `effect` is the worst that it would do in production, `why` says how. `tests` are the smallest tests that
    fail with it, as pytest names them.
    """

    area: str
    name: str
    file: str
    old: str
    new: str
    effect: str
    why: str
    tests: tuple[str, ...]

    def applied(self, text: str) -> str:
        """The file's text with the fault in it. Raises ValueError unless `old` is there exactly once."""
        found = text.count(self.old)
        if found != 1:
            raise ValueError(f"its old text occurs {found} times in {self.file}")
        return text.replace(self.old, self.new)


def read(folder: Path = FOLDER) -> list[Fault]:
    """All faults, by file and in order. Raises ValueError for one that is not whole."""
    return [
        _fault(path.stem, fields)
        for path in sorted(folder.glob("*.toml"))
        for fields in tomllib.loads(path.read_text())["fault"]
    ]


def _fault(area: str, fields: dict[str, object]) -> Fault:
    tests = fields.pop("tests", None)
    texts = {name: value for name, value in fields.items() if isinstance(value, str) and value}
    if texts.keys() | {"new"} != {"name", "file", "old", "new", "effect", "why"} or not isinstance(
        tests, list
    ):
        raise ValueError(
            f"{area}.toml: {fields.get('name')}: name, file, old, new, effect, why and tests are texts"
        )
    if texts["effect"] not in EFFECTS or not tests or texts["old"] == fields["new"]:
        raise ValueError(f"{area}.toml: {texts['name']}: it has no effect, no test, or changes nothing")
    return Fault(
        area,
        texts["name"],
        texts["file"],
        texts["old"],
        texts.get("new", ""),
        texts["effect"],
        texts["why"],
        tuple(map(str, tests)),
    )
