"""python -m tests.fuzz.shards -runs=N: safetensors headers, bent or of any bytes, up to the layout that follows."""

import atheris

with atheris.instrument_imports(include=["mesh.checkpoint"]):
    from mesh.checkpoint import grouping, shards  # noqa: F401

from tests.fuzz.harness import fuzz
from tests.fuzz.headers import check, make


def target(data: bytes) -> None:
    """One file: what the bytes say, or the bytes themselves."""
    check(data)
    provider = atheris.FuzzedDataProvider(data)
    check(make(lambda most: provider.ConsumeIntInRange(0, most - 1)))


if __name__ == "__main__":
    header = b'{"a.0.b":{"dtype":"F4","shape":[2,2],"data_offsets":[0,2]}}'
    fuzz(target, [len(header).to_bytes(8, "little") + header + bytes(2), bytes(60), bytes(range(250))])
