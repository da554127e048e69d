"""Compiles the policy, or another package whose name is given, with mypyc into build/compiled, where mesh/compiled.py
finds it while the sources stay the same.

Needs a C compiler, and a core for some minutes. Nothing else depends on it: without, the same sources are run.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

from mypyc.build import mypycify
from setuptools import setup

from mesh.compiled import folder
from mesh.constructors import written_out

ROOT = Path(__file__).parent
CROSSING = ("compare.py", "outcome.py", "report.py", "request.py")  # of sim: compiled records cannot be pickled
LEFT_OUT = ("__init__.py", "__main__.py", "plots.py", "processes.py", *CROSSING)


def main() -> None:
    """Exit codes: 0 it is there, else a compiler has said why not."""
    package = sys.argv[1] if len(sys.argv) > 1 else "policy"
    goal = folder(ROOT / package)
    if not goal.is_dir():
        goal.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=goal.parent) as made:
            _compile(package, Path(made, "c"), Path(made, "lib"))
            Path(made, "lib").rename(goal)
    sys.stdout.write(f"{package} is compiled in {goal.relative_to(ROOT)}\n")


def _compile(package: str, scratch: Path, into: Path) -> None:
    """The package beside all that it imports of the project, which is found where it is."""
    files = _written_out(package, scratch)
    os.environ["MYPYPATH"] = str(ROOT)
    os.chdir(scratch)
    options = [f"--config-file={ROOT / 'pyproject.toml'}"] if (ROOT / "pyproject.toml").is_file() else []
    modules = mypycify([*options, *files], opt_level="2", group_name=f"{package}_ext", target_dir=str(scratch))
    arguments = ["--quiet", "build_ext", "--build-lib", str(into), "--build-temp", str(scratch)]
    setup(name=package, packages=[], ext_modules=modules, script_args=arguments)


def _written_out(package: str, scratch: Path) -> list[str]:
    """Copies the sources, those that are compiled with their constructors; returns these."""
    shutil.copytree(ROOT / package, scratch / package)
    files = sorted(path for path in (ROOT / package).glob("*.py") if path.name not in LEFT_OUT)
    for path in files:
        (scratch / path.relative_to(ROOT)).write_text(written_out(path.read_text()))
    return [str(path.relative_to(ROOT)) for path in files]


if __name__ == "__main__":
    main()
