"""Packages that run as machine code, where compile_policy.py has made that of the very sources that lie here."""

import hashlib
import re
import sys
from collections.abc import Iterable
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parent.parent
MAKERS = ("compile_policy.py", "mesh/constructors.py")
IMPORTS = re.compile(rb"^\s*(?:from|import)\s+(\w+)\.(\w+)", re.MULTILINE)


def folder(package: Path) -> Path:
    """Where what is compiled of a package's modules, for this Python, lies if it is there: other sources have another
    folder. What they are compiled against counts, too, and how they are compiled."""
    digest = hashlib.sha256(EXTENSION_SUFFIXES[0].encode())
    for path in [*sources(package), *(path for one in MAKERS if (path := ROOT / one).is_file())]:
        digest.update(f"{path.parent.name}/{path.name}\0".encode() + path.read_bytes() + b"\0")
    return package.parent / "build" / "compiled" / digest.hexdigest()[:16]


def sources(package: Path) -> list[Path]:
    """A package's own modules, and those of other packages of the project that they import, or that these do."""
    own = set(package.glob("*.py"))
    relied, unread = set[Path](), _imported(own) - own
    while unread:
        relied |= unread
        unread = _imported(unread) - relied - own
    return [*sorted(own), *sorted(relied)]


def use(package: ModuleType) -> bool:
    """Has this process import a package's modules as machine code, if that is there; to be called before any of them is
    imported. Returns whether it is."""
    found = folder(Path(package.__path__[0]))
    if not found.is_dir():
        return False
    sys.path.append(str(found))  # the library that all of its modules share
    package.__path__.insert(0, str(found / package.__name__))
    return True


def _imported(modules: Iterable[Path]) -> set[Path]:
    named = {found for path in modules for found in IMPORTS.findall(path.read_bytes())}
    return {path for package, name in named if (path := ROOT / package.decode() / f"{name.decode()}.py").is_file()}
