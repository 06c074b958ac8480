"""The check of sizes and attributes names what it has to, with its line, and nothing else."""

from textwrap import dedent

from tests.support.structure import offenders


def found(source: str, **modules: str) -> list[str]:
    """What is reported of a package with the module ``a.py``, and with more of them by their names."""
    files = {"flagstream/a.py": source} | {f"flagstream/{name}.py": text for name, text in modules.items()}
    return list(offenders({path: dedent(text) for path, text in files.items()}))


def fields(count: int, indent: int) -> str:
    return "\n".join(f"{' ' * indent}self.x{number} = {number}" for number in range(count))


def test_a_module_may_have_400_lines() -> None:
    """A module of 401 lines is reported, one of 400 is not."""
    assert found("\n" * 400) == []
    assert found("\n" * 401) == ["flagstream/a.py:401: the module has 401 lines, and 400 are allowed"]


def test_a_class_may_have_15_attributes() -> None:
    """A class with 16 instance attributes is reported at its line, one with 15 is not."""
    assert found(f"class A:\n  def __init__(self):\n{fields(15, 4)}") == []
    assert [
        line.partition(" instance")[0]
        for line in found(f"\nclass A:\n  def __init__(self):\n{fields(16, 4)}")
    ] == ["flagstream/a.py:2: A has 16"]


def test_inherited_declared_and_slotted_attributes_count() -> None:
    """The attributes of a base in another module, of the class body and of ``__slots__`` count, each once."""
    base = f"class Base:\n  def __init__(self):\n{fields(14, 4)}"
    own = """
        from flagstream.b import Base as Other

        class A(Other):
            __slots__ = ("one",)
            two: int
    """
    (line,) = found(own, b=base)
    assert line.startswith("flagstream/a.py:4: A has 16 instance attributes")


def test_class_variables_and_properties_do_not_count() -> None:
    """What the class has, or computes, is not an attribute of an instance."""
    source = """
        class A:
            LIMIT: ClassVar[int] = 3
            other = 4

            @property
            def value(self): ...

            @value.setter
            def value(self, value): ...

            def __init__(self):
                self.value = 3
    """
    assert found(dedent(source) + fields(15, 8)) == []


def test_settings_values_and_exceptions_may_have_any_number() -> None:
    """The limit is for classes that work, not for those that hold values, whoever says so."""
    body = "\n".join(f"  x{number}: int" for number in range(16))
    for head in (
        "@dataclass(frozen=True)\nclass A:",
        "class A(BaseModel):",
        "class A(msgspec.Struct, frozen=True):",
        "class A(NamedTuple):",
        "class A(ValueError):",
        "class Section(BaseModel): ...\nclass A(Section):",
    ):
        assert found(f"{head}\n{body}") == [], head
    assert len(found(f"class A:\n{body}")) == 1


def test_an_attribute_that_a_later_call_sets_is_reported_once() -> None:
    """The first assignment outside ``__init__`` is named, whatever its form; a later one is not."""
    source = """
        class A:
            def __init__(self):
                self.known = 1

            def open(self):
                self.known = 2
                self.late = 3
                first, self.second = 1, 2
                for self.third in (): ...
                with open() as self.fourth: ...
                setattr(self, "fifth", 1)
                self.sixth: int = 6

            async def again(self):
                self.late = 4
    """
    assert [line.partition(" is first")[0] for line in found(source)] == [
        "flagstream/a.py:8: A.late",
        "flagstream/a.py:9: A.second",
        "flagstream/a.py:10: A.third",
        "flagstream/a.py:11: A.fourth",
        "flagstream/a.py:12: A.fifth",
        "flagstream/a.py:13: A.sixth",
    ]


def test_a_type_alone_sets_nothing() -> None:
    """``self.name: int`` in the constructor does not stand for a value."""
    source = """
        class A:
            def __init__(self):
                self.late: int

            def open(self):
                self.late = 1
    """
    assert found(source) == ["flagstream/a.py:7: A.late is first set in open, not in __init__"]


def test_a_function_inside_init_runs_later() -> None:
    """What a nested function sets on the instance is not set when the constructor returns."""
    source = """
        class A:
            def __init__(self):
                def start():
                    self.late = 1
    """
    assert found(source) == ["flagstream/a.py:5: A.late is first set in __init__.start, not in __init__"]


def test_declared_and_inherited_attributes_count_as_set() -> None:
    """A class body may declare what a later call sets, and so may the constructor of a base."""
    base = """
        class Base:
            declared: int

            def __init__(self):
                self.inherited = 1
    """
    own = """
        import flagstream.b as other

        class A(other.Base):
            mine = 0

            def open(self):
                self.declared = self.inherited = self.mine = 2
    """
    assert found(own, b=base) == []


def test_the_instance_is_the_first_parameter() -> None:
    """Assignments to other objects, to the class, and to the instance of a nested class are not meant."""
    source = """
        class A:
            def use(self, other):
                other.late = 1

            @classmethod
            def make(cls):
                cls.late = 1

            def build(this):
                this.named = 1

                class Inner:
                    def __init__(this):
                        this.inner = 1
    """
    assert found(source) == ["flagstream/a.py:11: A.named is first set in build, not in __init__"]
