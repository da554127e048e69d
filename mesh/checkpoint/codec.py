"""manifest.json to records and back, and its digest. Types and field names are checked here. Pure."""

import dataclasses
import json
import types
import typing
from collections.abc import Callable
from enum import StrEnum
from functools import cache
from typing import Any

from blake3 import blake3

from mesh.checkpoint import strict_json
from mesh.checkpoint.errors import ManifestError
from mesh.checkpoint.records import FORMAT, VERSION, Manifest

OPTIONAL = ("base", "runner")  # left out where they are null: most checkpoints have neither
type_hints = cache(typing.get_type_hints)
Decoder = Callable[[object, str], Any]  # JSON value, path of the field -> record


def parse(manifest_json: bytes) -> Manifest:
    """The manifest that the bytes spell. Every field must be there, and no other. Raises ManifestError."""
    try:
        value = strict_json.loads(manifest_json)
    except ValueError as error:
        raise ManifestError("", f"not JSON as we need it: {error}") from error
    if not isinstance(value, dict):
        raise ManifestError("", "must be a JSON object")
    _check_version(value)
    fields = dict.fromkeys(OPTIONAL) | {
        name: field for name, field in value.items() if name not in {"format", "version"}
    }
    manifest = _decoder(Manifest)(fields, "")
    assert isinstance(manifest, Manifest)
    return manifest


def dump(manifest: Manifest) -> bytes:
    """Canonical JSON: sorted keys, no spaces, ASCII. Equal manifests give equal bytes."""
    return _canonical(_fields(manifest))


def digest_of(manifest: Manifest) -> str:
    """BLAKE3, hex, over the canonical JSON without `source` and `digest`."""
    fields = _fields(manifest)
    del fields["source"], fields["digest"]
    return blake3(_canonical(fields)).hexdigest()


def _fields(manifest: Manifest) -> dict[str, object]:
    fields = {"format": FORMAT, "version": VERSION, **_members(manifest)}
    for name in OPTIONAL:
        if fields[name] is None:
            del fields[name]
    return fields


def _members(record: Any) -> dict[str, object]:
    """A record as a dict, one level deep: json.dumps asks again for what is inside. Four times as fast as asdict."""
    return {name: getattr(record, name) for name in record.__slots__}


def _canonical(fields: dict[str, object]) -> bytes:
    return json.dumps(fields, sort_keys=True, separators=(",", ":"), allow_nan=False, default=_members).encode()


def _check_version(value: dict[str, object]) -> None:
    if value.get("format") != FORMAT:
        raise ManifestError("format", f"must be {FORMAT!r}; this is no manifest of ours")
    version = value.get("version")
    if type(version) is not int or version != VERSION:
        raise ManifestError("version", f"{version!r} is unknown; this release reads version {VERSION}")


@cache
def _decoder(hint: Any) -> Decoder:
    """What turns JSON into `hint`: str, int, an enum, a record, X | None, or tuple[X, ...]."""
    if isinstance(hint, types.UnionType):
        return _optional(_decoder(next(arm for arm in hint.__args__ if arm is not type(None))))
    if typing.get_origin(hint) is tuple:
        return _many(_decoder(typing.get_args(hint)[0]))
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return _record(hint)
    return {str: _text, int: _number}.get(hint) or _choice(hint)


def _text(value: object, path: str) -> str:
    if not isinstance(value, str):
        raise ManifestError(path, f"must be a string, is {type(value).__name__}")
    if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
        raise ManifestError(path, "has half of a surrogate pair, which no file name or key can have")
    return value


def _number(value: object, path: str) -> int:
    if type(value) is not int:  # bool is an int to isinstance
        raise ManifestError(path, f"must be a whole number, is {type(value).__name__}")
    return value


def _choice(hint: type[StrEnum]) -> Decoder:
    def decode(value: object, path: str) -> StrEnum:
        if not isinstance(value, str) or value not in hint.__members__.values():
            raise ManifestError(path, f"must be one of {', '.join(hint)}")
        return hint(value)

    return decode


def _optional(decode: Decoder) -> Decoder:
    return lambda value, path: None if value is None else decode(value, path)


def _many(decode: Decoder) -> Decoder:
    def decode_all(value: object, path: str) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise ManifestError(path, f"must be a list, is {type(value).__name__}")
        return tuple(decode(item, f"{path}[{index}]") for index, item in enumerate(value))

    return decode_all


def _record(kind: type) -> Decoder:
    fields = {name: _decoder(hint) for name, hint in type_hints(kind).items()}

    def decode(value: object, path: str) -> object:
        if not isinstance(value, dict):
            raise ManifestError(path, f"must be an object, is {type(value).__name__}")
        prefix = f"{path}." if path else ""
        if value.keys() != fields.keys():
            _complain(value.keys(), fields.keys(), prefix)
        return kind(**{name: field(value[name], prefix + name) for name, field in fields.items()})

    return decode


def _complain(found: typing.KeysView[str], wanted: typing.KeysView[str], prefix: str) -> typing.NoReturn:
    missing, unknown = sorted(wanted - found), sorted(found - wanted)
    if missing:
        raise ManifestError(prefix + missing[0], "is missing")
    raise ManifestError(prefix + unknown[0], f"is no field of format version {VERSION}")
