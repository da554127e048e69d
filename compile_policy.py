"""Compiles the policy with mypyc into build/compiled, where mesh/compiled.py finds it while the sources stay the same.

Needs a C compiler, and a core for a minute or two. Nothing else depends on it: without, the same sources are run.
"""

import os
import sys
import tempfile
from pathlib import Path

from mypyc.build import mypycify
from setuptools import setup

from mesh.compiled import folder

ROOT = Path(__file__).parent


def main() -> None:
    """Exit codes: 0 it is there, else a compiler has said why not."""
    os.chdir(ROOT)
    goal = folder(ROOT / "policy")
    if not goal.is_dir():
        goal.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=goal.parent) as made:
            _compile(Path(made, "c"), Path(made, "lib"))
            Path(made, "lib").rename(goal)
    sys.stdout.write(f"the policy is compiled in {goal.relative_to(ROOT)}\n")


def _compile(scratch: Path, into: Path) -> None:
    files = sorted(str(path) for path in Path("policy").glob("*.py") if path.name != "__init__.py")
    modules = mypycify(files, opt_level="2", group_name="policy_ext", target_dir=str(scratch))
    arguments = ["--quiet", "build_ext", "--build-lib", str(into), "--build-temp", str(scratch)]
    setup(name="policy", packages=[], ext_modules=modules, script_args=arguments)


if __name__ == "__main__":
    main()
