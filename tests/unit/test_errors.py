"""The tree of exceptions is the one that errors.py draws."""

import importlib
import inspect
import pkgutil
import re

import flagstream
from flagstream import errors
from flagstream.errors import FlagstreamError, ObjectConflict, PartitionStopped, RecordsMissing

_ART = re.compile("[│├└─]+")
_BRANCH = re.compile(r"    (?P<indent>[│├└─ ]*)(?P<name>[A-Z]\w+)( |$)")


def drawn() -> dict[str, str]:
    """Each class in the drawing of errors.py, with the class that it hangs below."""
    parents: dict[str, str] = {}
    above: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        if match := _BRANCH.match(line):
            depth = len(match["indent"]) // 4
            above = [*above[:depth], match["name"]]
            parents[match["name"]] = above[depth - 1] if depth else ""
    return parents


def exceptions() -> list[type[BaseException]]:
    """Every exception class that a module of the package defines for others."""
    found: dict[str, type[BaseException]] = {}
    for module in pkgutil.walk_packages(flagstream.__path__, "flagstream."):
        if module.name != "flagstream.__main__":
            for name, kind in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
                public = kind.__module__.startswith("flagstream.") and not name.startswith("_")
                if public and issubclass(kind, BaseException):
                    found[kind.__name__] = kind
    return list(found.values())


def test_the_drawing_is_the_tree() -> None:
    """Every error that is raised on purpose stands in the drawing, below its base class."""
    made = {kind.__name__: kind.__bases__[0].__name__ for kind in exceptions()}
    assert drawn() == {**made, "FlagstreamError": ""}


def test_a_class_names_its_module() -> None:
    """What does not stand in errors.py itself has its module in the drawing."""
    lines = {
        line.split()[0]: line for line in _ART.sub("", errors.__doc__ or "").splitlines() if line.strip()
    }
    for kind in exceptions():
        module = kind.__module__.removeprefix("flagstream.")
        assert lines[kind.__name__].endswith(f"({module})") == (module != "errors"), kind


def test_all_derive_from_one_root() -> None:
    """One ``except FlagstreamError`` takes all of them."""
    assert [kind for kind in exceptions() if not issubclass(kind, FlagstreamError)] == []


def test_what_stops_a_partition_says_when_to_look_again() -> None:
    """A conflict and missing records never pass by themselves."""
    assert ObjectConflict("other content").look_again is None
    assert RecordsMissing("deleted").look_again is None
    assert PartitionStopped("gone", 60.0).look_again == 60.0
