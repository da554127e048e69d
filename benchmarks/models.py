"""Random models for benchmarks. Run as a module, it writes one: python -m benchmarks.models DIRECTORY BILLIONS"""

import shutil
import sys
from pathlib import Path

from benchmarks.child import child, reply


async def random_llama(directory: Path, parameters_b: float) -> Path:
    """A random bfloat16 Llama of about that many billion weights; one that is there already is used again."""
    path = directory / f"llama-{parameters_b:g}b"
    async with child("benchmarks.models", [str(path), str(parameters_b)]) as writer:
        return Path(await writer.answer())


def _write(path: Path, parameters_b: float) -> None:
    """Under a temporary name first, so that a directory that is there is whole."""
    if path.is_dir():
        return
    from demo.models import write_random_llama  # noqa: PLC0415  seconds of imports, only in the child

    unfinished = path.with_name(f".{path.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    write_random_llama(unfinished, parameters_b).rename(path)


if __name__ == "__main__":
    _write(Path(sys.argv[1]), float(sys.argv[2]))
    reply(str(Path(sys.argv[1]).absolute()))
