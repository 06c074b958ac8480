"""Checks the sizes and the attributes of the package; `make check` runs it.

It reports a module with more than 400 lines, a class with more than 15 instance attributes, and an attribute
that a method other than ``__init__`` sets first. Settings and value classes may have any number of them. What
a class body declares counts as set.

It reads source text only. A base class is found by its name, through the imports of its module; one from
outside of the package has no attributes here.
"""

import ast
import builtins
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

WORKER = Path(__file__).resolve().parents[2] / "worker"
MODULE_LINES = 400
CLASS_ATTRIBUTES = 15

VALUE_BASES = frozenset(
    {"BaseModel", "BaseSettings", "NamedTuple", "TypedDict", "Struct"}
    | {"Enum", "IntEnum", "StrEnum", "Flag", "IntFlag"}
    | {
        name
        for name, kind in vars(builtins).items()
        if isinstance(kind, type) and issubclass(kind, BaseException)
    }
)
"""The names of the bases of settings models, of values and of exceptions."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Assignment:
    """A method sets ``self.name`` in this line."""

    name: str
    line: int
    method: str


class Class:
    """What one class statement says of the attributes of its instances."""

    def __init__(self, node: ast.ClassDef) -> None:
        self.node = node
        self.declared: set[str] = set()
        """The names that the body annotates, assigns, or lists in ``__slots__``."""
        self.instance_fields: set[str] = set()
        """Those that each instance has: the annotated ones, without class variables, and the slots."""
        self.properties: set[str] = set()
        self.assignments: list[Assignment] = []
        self.is_dataclass = any(_name(one) == "dataclass" for one in node.decorator_list)
        for statement in node.body:
            self._read(statement)

    @property
    def bases(self) -> Iterator[str]:
        """Yield the dotted name of each base as it is written, without type arguments."""
        for base in self.node.bases:
            yield _dotted(base)

    @cached_property
    def set_in_init(self) -> set[str]:
        """The attributes that the constructor sets."""
        constructors = {"__init__", "__new__"} | ({"__post_init__"} if self.is_dataclass else set())
        return {one.name for one in self.assignments if one.method in constructors}

    def _read(self, statement: ast.stmt) -> None:
        match statement:
            case ast.AnnAssign(target=ast.Name(id=name)):
                self.declared.add(name)
                if _dotted(statement.annotation).rpartition(".")[2] != "ClassVar":
                    self.instance_fields.add(name)
            case ast.Assign(targets=targets):
                names = {target.id for target in targets if isinstance(target, ast.Name)}
                self.declared |= names
                if "__slots__" in names:
                    slots = {
                        part.value for part in ast.walk(statement.value) if isinstance(part, ast.Constant)
                    }
                    self.instance_fields |= {slot for slot in slots if isinstance(slot, str)}
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                decorators = {_name(one) for one in statement.decorator_list}
                if decorators & {"property", "cached_property", "setter"}:
                    self.properties.add(statement.name)
                if not decorators & {"staticmethod", "classmethod"} and (
                    parameters := _positional(statement)
                ):
                    self.assignments += _assignments(statement, parameters[0])


def _positional(function: Function) -> list[str]:
    return [parameter.arg for parameter in (*function.args.posonlyargs, *function.args.args)]


def _assignments(method: Function, instance: str) -> Iterator[Assignment]:
    """Yield what ``method`` sets on its ``instance``. A function inside of it runs later."""

    def inside(node: ast.AST, function: str) -> Iterator[Assignment]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef) or (isinstance(child, ast.AnnAssign) and child.value is None):
                continue  # ``self.name: int`` gives a type and sets nothing
            if isinstance(child, Function | ast.Lambda):
                names = {parameter.arg for parameter in (*child.args.posonlyargs, *child.args.args)}
                if instance not in names:
                    yield from inside(child, f"{function}.{getattr(child, 'name', 'lambda')}")
                continue
            match child:
                case ast.Attribute(value=ast.Name(id=name), ctx=ast.Store()) if name == instance:
                    yield Assignment(child.attr, child.lineno, function)
                case ast.Call(
                    func=ast.Name(id="setattr") | ast.Attribute(attr="__setattr__"),
                    args=[ast.Name(id=name), ast.Constant(value=str(attribute)), _],
                ) if name == instance:
                    yield Assignment(attribute, child.lineno, function)
            yield from inside(child, function)

    yield from inside(method, method.name)


def _name(node: ast.expr) -> str:
    """Return the last part of the name of a decorator."""
    return _dotted(node).rpartition(".")[2]


def _dotted(node: ast.expr) -> str:
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=value, attr=attribute):
            return f"{_dotted(value)}.{attribute}"
        case ast.Subscript(value=value) | ast.Call(func=value):
            return _dotted(value)
        case ast.Constant(value=str(text)):
            return text.partition("[")[0]
    return ""


class Package:
    """All classes of a package. ``sources`` are the texts of its modules by their dotted names."""

    def __init__(self, sources: Mapping[str, str]) -> None:
        self._classes: dict[str, Class] = {}
        """By module and name; a class inside of a class or function has its line for a part of the name."""
        self._imported: dict[str, str] = {}
        """What a name in a module stands for: ``a.b.Name`` by ``module.Name``."""
        for module, source in sources.items():
            self._read(module, ast.parse(source))

    def classes(self) -> Iterator[tuple[str, Class]]:
        """Yield each class with the name of its module, in the order of the lines."""
        for name, one in self._classes.items():
            yield name.partition(":")[0], one

    def is_value(self, module: str, one: Class) -> bool:
        """Whether ``one`` holds settings or values, or is an exception."""
        return one.is_dataclass or any(
            base.rpartition(".")[2] in VALUE_BASES if found is None else self.is_value(*found)
            for base, found in self._bases(module, one)
        )

    def attributes(self, module: str, one: Class) -> set[str]:
        """Return the names of all attributes of an instance, inherited ones included."""
        own = one.instance_fields | {each.name for each in one.assignments} - self._inherited(
            module, one, "properties"
        )
        for _, found in self._bases(module, one):
            if found is not None:
                own |= self.attributes(*found)
        return own

    def first_set_late(self, module: str, one: Class) -> Iterator[Assignment]:
        """Yield the first assignment to each attribute that neither constructor nor class body sets."""
        known = set[str]()
        for kind in ("declared", "set_in_init", "properties"):
            known |= self._inherited(module, one, kind)
        for assignment in one.assignments:
            if assignment.name not in known:
                known.add(assignment.name)
                yield assignment

    def _inherited(self, module: str, one: Class, kind: str) -> set[str]:
        """Return the names of this ``kind`` of the class and of its bases."""
        names: set[str] = set(getattr(one, kind))
        for _, found in self._bases(module, one):
            if found is not None:
                names |= self._inherited(found[0], found[1], kind)
        return names

    def _bases(self, module: str, one: Class) -> Iterator[tuple[str, tuple[str, Class] | None]]:
        """Yield each base's name, with its module and class where it is one of the package."""
        for base in one.bases:
            found = self._find(module, base)
            yield base, found if found is None or found[1] is not one else None

    def _find(self, module: str, name: str) -> tuple[str, Class] | None:
        for _ in range(10):  # names that modules pass on
            if (found := self._classes.get(f"{module}:{name}")) is not None:
                return module, found
            first, _, rest = name.partition(".")
            meant = self._imported.get(f"{module}:{first}")
            if meant is None:
                return None
            module, _, name = f"{meant}.{rest}".rstrip(".").rpartition(".")
        return None

    def _read(self, module: str, tree: ast.Module) -> None:
        for node in ast.walk(tree):
            match node:
                case ast.ClassDef():
                    inner = f"{module}:{node.name}" in self._classes
                    self._classes[f"{module}:{node.name}" + (f"@{node.lineno}" if inner else "")] = Class(
                        node
                    )
                case ast.ImportFrom(module=str(source), names=names):
                    for alias in names:
                        self._imported[f"{module}:{alias.asname or alias.name}"] = f"{source}.{alias.name}"
                case ast.Import(names=names):
                    for alias in names:
                        if alias.asname:
                            self._imported[f"{module}:{alias.asname}"] = alias.name


def offenders(files: Mapping[str, str]) -> Iterator[str]:
    """Yield a line for each offender. ``files`` are the texts of the package by their paths."""
    modules = {_module(path): path for path in files}
    package = Package({_module(path): text for path, text in files.items()})
    for path, text in files.items():
        if (lines := text.count("\n")) > MODULE_LINES:
            yield f"{path}:{MODULE_LINES + 1}: the module has {lines} lines, and {MODULE_LINES} are allowed"
    for module, one in package.classes():
        path, name = modules[module], one.node.name
        attributes = package.attributes(module, one)
        if len(attributes) > CLASS_ATTRIBUTES and not package.is_value(module, one):
            yield (
                f"{path}:{one.node.lineno}: {name} has {len(attributes)} instance attributes, and "
                f"{CLASS_ATTRIBUTES} are allowed: {', '.join(sorted(attributes))}"
            )
        for assignment in package.first_set_late(module, one):
            yield (
                f"{path}:{assignment.line}: {name}.{assignment.name} is first set in {assignment.method}, "
                "not in __init__"
            )


def _module(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def read(folder: Path = WORKER) -> dict[str, str]:
    """Return the texts of all modules below ``folder`` by their paths."""
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*.py"))}


def main(arguments: Sequence[str]) -> int:
    found = list(offenders(read()))
    print(
        "\n".join(f"worker/{line}" for line in found) or "no module and no class is too large",
        file=sys.stderr,
    )
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
