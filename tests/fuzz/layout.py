"""python -m tests.fuzz.layout -runs=N: bent manifests through parse, validate and the views that follow."""

import json

import atheris

with atheris.instrument_imports(include=["mesh.checkpoint"]):
    from mesh.checkpoint import layout

from tests.fuzz.harness import fuzz
from tests.fuzz.manifests import bend, check, sealed_json
from tests.mesh.checkpoint.samples import manifest

SAMPLE = layout.dump(manifest())
MOST_BENDS = 6


def target(data: bytes) -> None:
    """One manifest, bent as the bytes say."""
    provider = atheris.FuzzedDataProvider(data)
    fields = json.loads(SAMPLE)
    for _ in range(provider.ConsumeIntInRange(0, MOST_BENDS)):
        bend(fields, lambda most: provider.ConsumeIntInRange(0, most - 1))
    check(sealed_json(fields))


if __name__ == "__main__":
    fuzz(target, [bytes(40), bytes(range(200))])
