"""Constructors that are written out are those that the decorator makes."""

import inspect
import sys
from dataclasses import FrozenInstanceError, is_dataclass
from pathlib import Path
from types import ModuleType

import pytest

from mesh.compiled import ROOT
from mesh.constructors import written_out

NOTE = '''
from dataclasses import dataclass, field
from typing import ClassVar


@dataclass(slots=True)
class Note:
    """Some."""

    MOST: ClassVar[int] = 3
    text: str
    of: float | str
    number: int = 7
    tags: list[str] = field(default_factory=list)
    seen: bool = field(default=False, compare=False)
    length: int = field(init=False)
    marks: int = field(init=False, default=2)

    def __post_init__(self) -> None:
        self.length = len(self.text)


@dataclass(frozen=True)
class Last:
    at_s: float'''
MODULES = sorted([*(ROOT / "policy").glob("*.py"), *(ROOT / "sim").glob("*.py")])


def module(source: str, name: str = "note") -> ModuleType:
    made = ModuleType(name)
    sys.modules.setdefault(name, made)  # where the decorator looks names up
    exec(compile(source, name, "exec"), made.__dict__)
    return made


def test_an_instance_gets_what_the_decorator_would_have_given_it() -> None:
    made, written = module(NOTE).Note, module(written_out(NOTE)).Note
    for arguments in (("a", 1.5), ("ab", 1, 8, ["x"], True), ("abc", "of")):
        assert repr(written(*arguments)) == repr(made(*arguments))
    assert written("a", 1).tags is not written("a", 1).tags


def test_what_is_frozen_is_to_be_given_what_it_has_by_a_compiled_constructor_alone() -> None:
    last = module(written_out(NOTE)).Last
    with pytest.raises(FrozenInstanceError):
        last(1.0)


def test_all_lines_keep_their_numbers() -> None:
    lines = written_out(NOTE).splitlines()
    kept = [here for here, was in zip(lines, NOTE.splitlines(), strict=False) if here != was]
    assert len(kept) == 1
    assert kept[0].startswith(
        "    def __init__(self, text: str, of: float | str, number: int = 7, tags: list[str] | None = None,"
    )
    assert lines[len(NOTE.splitlines()) :] == [
        "    def __init__(self, at_s: float) -> None: self.at_s = at_s  # type: ignore[misc]"
    ]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: f"{path.parent.name}.{path.stem}")
def test_every_record_of_the_policy_and_the_simulator_takes_the_same_arguments(path: Path) -> None:
    name = f"{path.parent.name}.{path.stem}"
    if path.stem in ("__main__", "plots"):
        pytest.skip("is not compiled")
    source = path.read_text().replace("(frozen=True", "(unsafe_hash=True")  # some make records of their own at once
    written = vars(module(written_out(source), name))
    for record in [one for one in vars(module(source, name)).values() if isinstance(one, type) and is_dataclass(one)]:
        assert _taken(written[record.__name__]) == _taken(record)


def _taken(record: type) -> list[tuple[str, bool]]:
    """Arguments, and whether they may be left out."""
    arguments = inspect.signature(record).parameters.values()
    return [(one.name, one.default is not inspect.Parameter.empty) for one in arguments]
