"""python -m mesh.checkpoint.import_process SOURCE ROOT: an import as a process, so that torch stays out of others.

stdout carries JSON lines: any number of {"progress": {...}}, then {"digest": "..."} or {"error": {"type", "message"}}.
SIGTERM and Ctrl-C end it cleanly. importer.py is the other end.
"""

import argparse
import ctypes
import dataclasses
import json
import os
import signal
import sys
import traceback
from contextlib import closing
from pathlib import Path
from typing import TextIO

from mesh.checkpoint.adapter_fit import check_base
from mesh.checkpoint.codec import parse
from mesh.checkpoint.errors import CheckpointError, ImportFailed
from mesh.checkpoint.origins import open_origin
from mesh.checkpoint.progress import ImportPhase, ImportProgress
from mesh.checkpoint.records import Manifest
from mesh.checkpoint.source import inspect
from mesh.checkpoint.staging import make_way
from mesh.checkpoint.validate import validate

MESSAGE_CHARS = 4096  # of an error; a header may have a tensor name of megabytes
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(arguments: list[str]) -> int:
    """Runs the import; returns the exit status."""
    options = _parse(arguments)
    if options.parent:
        _die_with(options.parent)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    answers = _take_stdout()
    try:
        digest = _convert(options.source, options.root, options.base, answers)
    except CheckpointError as error:
        _send(answers, "error", {"type": type(error).__name__, "message": str(error)[:MESSAGE_CHARS]})
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Exception as error:
        traceback.print_exc()
        message = f"{type(error).__name__}: {error}"[:MESSAGE_CHARS]
        _send(answers, "error", {"type": ImportFailed.__name__, "message": message})
    else:
        _send(answers, "digest", digest)
        return 0
    return 1


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m mesh.checkpoint.import_process")
    parser.add_argument("source", help="a Hugging Face checkpoint directory, or its address")
    parser.add_argument("root", type=Path, help="the directory that checkpoints are kept in")
    parser.add_argument("--base", type=Path, help="of an adapter: the manifest.json of the checkpoint that it adapts")
    parser.add_argument("--parent", type=int, help="process id of the parent to die with")
    return parser.parse_args(arguments)


def _convert(address: str, root: Path, base_path: Path | None, answers: TextIO) -> str:
    def on_progress(progress: ImportProgress) -> None:
        _send(answers, "progress", dataclasses.asdict(progress))

    with closing(open_origin(address)) as origin:
        # Most bad sources are refused here, in a tenth of a second; torch takes several to import.
        found, base = inspect(origin), _manifest(base_path)
        check_base(found, base)
        begun = make_way(root, origin.url, found.bytes)
        on_progress(ImportProgress(ImportPhase.READING, begun, found.bytes))
        import torch  # noqa: PLC0415
        import transformers  # noqa: PLC0415

        from mesh.checkpoint.convert import import_origin  # noqa: PLC0415

        torch.set_num_threads(1)
        transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
        transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]

        return import_origin(origin, root, on_progress=on_progress, base=base).digest


def _manifest(path: Path | None) -> Manifest | None:
    if path is None:
        return None
    manifest = parse(path.read_bytes())
    validate(manifest)
    return manifest


def _take_stdout() -> TextIO:
    """Our own descriptor of stdout; whatever libraries print goes to stderr from now on."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return answers


def _send(answers: TextIO, kind: str, value: object) -> None:
    answers.write(json.dumps({kind: value}) + "\n")
    answers.flush()


def _die_with(parent: int) -> None:
    """From now on the kernel kills this process when the thread that started it ends. Exits if that has happened."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:
        raise SystemExit("the parent is gone")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
