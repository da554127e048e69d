"""Packages that run as machine code, where compile_policy.py has made that of the very sources that lie here."""

import hashlib
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import ModuleType

MESH = Path(__file__).parent


def folder(package: Path) -> Path:
    """Where what is compiled of a package's modules for this Python lies, if it is there: other sources have another
    folder. What it is compiled against counts, too, which is the mesh's own modules."""
    digest = hashlib.sha256(EXTENSION_SUFFIXES[0].encode())
    for path in (*sorted(package.glob("*.py")), *sorted(MESH.glob("*.py"))):
        digest.update(f"{path.parent.name}/{path.name}\0".encode() + path.read_bytes() + b"\0")
    return package.parent / "build" / "compiled" / digest.hexdigest()[:16]


def use(package: ModuleType) -> bool:
    """Has this process import a package's modules as machine code, if that is there; to be called before any of them is
    imported. Returns whether it is."""
    found = folder(Path(package.__path__[0]))
    if not found.is_dir():
        return False
    sys.path.append(str(found))  # the library that all of its modules share
    package.__path__.insert(0, str(found / package.__name__))
    return True
