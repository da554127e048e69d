"""When a package is run as it was compiled, and when as it stands."""

import subprocess
import sys
from pathlib import Path

import pytest

from mesh.compiled import ROOT, folder, sources

ASK = (
    "import sys, {name}; from mesh.compiled import use; used = use({name}); import {name}.thought;"
    "sys.stdout.write(f'{{used}} {{{name}.thought.SAID}}')"
)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """With one module."""
    made = tmp_path / "judgement"
    made.mkdir()
    (made / "__init__.py").touch()
    (made / "thought.py").write_text("SAID = 'interpreted'\n")
    return made


def ask(package: Path) -> str:
    """What a process of its own says of whether it uses what is compiled, and where the module came from."""
    command = [sys.executable, "-c", ASK.format(name=package.name)]
    path = [str(package.parent), *sys.path]
    return subprocess.run(
        command, env={"PYTHONPATH": ":".join(path)}, check=True, capture_output=True, text=True
    ).stdout


def compile_as_it_is(package: Path) -> None:
    """What stands for machine code here says so."""
    made = folder(package) / package.name
    made.mkdir(parents=True)
    (made / "thought.py").write_text("SAID = 'compiled'\n")


def test_what_is_not_compiled_runs_as_it_stands(package: Path) -> None:
    assert ask(package) == "False interpreted"


def test_what_is_compiled_of_these_sources_is_used(package: Path) -> None:
    compile_as_it_is(package)
    assert ask(package) == "True compiled"


def test_a_changed_source_runs_as_it_stands(package: Path) -> None:
    compile_as_it_is(package)
    (package / "thought.py").write_text("SAID = 'changed'\n")
    assert ask(package) == "False changed"


def test_the_policy_is_compiled_against_all_that_it_imports_of_the_mesh_and_no_more() -> None:
    own = ROOT / "policy"
    relied = {path.stem for path in sources(own) if path.parent != own}
    names = ", ".join(f"policy.{path.stem}" for path in own.glob("*.py") if path.stem != "__init__")
    show = f"import sys, {names}; print(*(name for name in sys.modules if name.startswith('mesh.')))"
    shown = subprocess.run([sys.executable, "-c", show], check=True, capture_output=True, text=True).stdout
    assert {f"mesh.{name}" for name in relied} == set(shown.split())


def test_a_module_counts_where_another_that_is_imported_imports_it(package: Path) -> None:
    (package / "thought.py").write_text("from mesh.moves import Moved\n")
    assert [path.stem for path in sources(package)] == ["__init__", "thought", "facts", "moves", "requests"]


def test_the_simulator_is_compiled_against_the_policy() -> None:
    assert set(sources(ROOT / "sim")) >= {ROOT / "policy/decide.py", ROOT / "policy/books.py", ROOT / "mesh/facts.py"}
