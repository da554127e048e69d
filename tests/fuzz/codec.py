"""python -m tests.fuzz.codec -runs=N: any bytes at all, taken for a manifest.json."""

import atheris

with atheris.instrument_imports(include=["mesh.checkpoint"]):
    from mesh.checkpoint import layout

from tests.fuzz.harness import fuzz
from tests.fuzz.manifests import check
from tests.mesh.checkpoint.samples import manifest


def target(data: bytes) -> None:
    """A manifest, or a ManifestError."""
    check(data)


if __name__ == "__main__":
    sample = layout.dump(manifest())
    fuzz(target, [sample, sample.replace(b'"base"', b'"bass"'), b"{}", b"[[[[", b"\xff", b'{"version":1e400}'])
