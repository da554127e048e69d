"""What makes two looks at an origin equal: names, sizes, and what the origin says of each file's version."""

from collections.abc import Iterable

from blake3 import blake3


def identity_of(files: Iterable[tuple[str, int, str]]) -> str:
    """A digest of (name, bytes, version) in the order of names; version is an entity tag or a modification time."""
    hasher = blake3()
    for name, size, version in sorted(files):
        for field in (name, str(size), version):
            spelled = field.encode(errors="surrogateescape")
            hasher.update(len(spelled).to_bytes(8, "little") + spelled)
    return hasher.hexdigest()
