"""Packages that run as machine code, where compile_policy.py has made that of the very sources that lie here."""

import hashlib
import re
import sys
from collections.abc import Iterable
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import ModuleType

MESH = Path(__file__).parent
IMPORTS = re.compile(rb"^\s*(?:from|import)\s+mesh\.(\w+)", re.MULTILINE)


def folder(*packages: Path) -> Path:
    """Where what is compiled of these packages, for this Python, lies if it is there: other sources have another
    folder. What they are compiled against counts, too."""
    digest = hashlib.sha256(EXTENSION_SUFFIXES[0].encode())
    for path in sources(*packages):
        digest.update(f"{path.parent.name}/{path.name}\0".encode() + path.read_bytes() + b"\0")
    return packages[0].parent / "build" / "compiled" / digest.hexdigest()[:16]


def sources(*packages: Path) -> list[Path]:
    """The packages' own modules, and those of the mesh that they import, or that these do."""
    own = [path for package in packages for path in sorted(package.glob("*.py"))]
    relied, unread = set[Path](), _imported(own)
    while unread := unread - relied:
        relied |= unread
        unread = _imported(unread)
    return [*own, *sorted(relied)]


def use(*packages: ModuleType) -> bool:
    """Has this process import the packages' modules as machine code, if that is there; to be called before any of them
    is imported. Returns whether it is."""
    found = folder(*(Path(package.__path__[0]) for package in packages))
    if not found.is_dir():
        return False
    sys.path.append(str(found))  # the library that all of their modules share
    for package in packages:
        package.__path__.insert(0, str(found / package.__name__))
    return True


def _imported(modules: Iterable[Path]) -> set[Path]:
    names = {name.decode() for path in modules for name in IMPORTS.findall(path.read_bytes())}
    return {path for name in names if (path := MESH / f"{name}.py").is_file()}
