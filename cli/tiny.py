"""A process that writes tiny random models: python -m cli.tiny KIND DIRECTORY [KIND DIRECTORY ...]

A process of its own, because torch and transformers take seconds to import.
"""

import shutil
import sys
from pathlib import Path

from demo.models import write_tiny


def main() -> None:
    """Writes each model under a temporary name first, so that a directory that is there is whole."""
    for kind, directory in zip(sys.argv[1::2], map(Path, sys.argv[2::2]), strict=True):
        unfinished = directory.with_name(f".{directory.name}")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        write_tiny(kind, unfinished).rename(directory)


if __name__ == "__main__":
    main()
