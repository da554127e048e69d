"""What can be wrong with a checkpoint, or with making one. What a gRPC caller sees of it is decided in mesh/errors.py.

CheckpointError
├── ManifestError       manifest.json breaks the format; names the field
├── Damaged             a stored checkpoint is not what its manifest says: import or fetch it again
│   └── CorruptUnit     a unit's bytes do not have its hash
├── BadAddress          the source's address is none that is known
├── NotACheckpoint      the source has no config.json, or no safetensors
├── OriginUnreachable   the source's server did not answer; trying again may help
│   └── OriginRefused   it would not, and will not until somebody changes what the message says
├── PickleRefused       the source has weights only as pickles
├── BadShard            a safetensors file, or their index, is truncated or malformed
├── TensorClash         two shards hold a tensor of the same name
├── PathEscapes         a name or a link leads out of the source directory
├── UnsupportedModel    remote code, an unknown or non-causal architecture, an adapter that is no LoRA
├── ShardMismatch       the shards do not hold the tensors that the architecture has, or that fit an adapter's base
├── BaseMismatch        an adapter without the checkpoint that it adapts, or the other way round
├── StorageFailed       the disk said no: full, read-only, gone
└── ImportFailed        the importing process died, or hit a fault of ours
"""


class CheckpointError(Exception):
    """The message says what is wrong, where, and what to do about it."""


class ManifestError(CheckpointError):
    """A field of manifest.json is missing, of the wrong type, or out of range."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"manifest field {field}: {problem}" if field else f"manifest: {problem}")
        self.field = field


class Damaged(CheckpointError):
    """A stored checkpoint is incomplete or has changed on disk."""


class CorruptUnit(Damaged):
    """Bytes that claim to be a unit are not: quarantine them, fetch the unit again."""

    def __init__(self, digest: str, unit: str, problem: str) -> None:
        super().__init__(f"unit {unit} of checkpoint {digest}: {problem}; fetch or import it again")
        self.digest = digest
        self.unit = unit


class BadAddress(CheckpointError):
    """No source can have this address. The message goes on after the name of what it was given as."""


class NotACheckpoint(CheckpointError):
    """The source is no Hugging Face checkpoint directory."""


class OriginUnreachable(CheckpointError):
    """The source could not be read now: no answer, or it changed under the import."""


class OriginRefused(OriginUnreachable):
    """The source may not be read, or cannot be this way: no permission, no use of ranges, a setting that forbids it."""


class PickleRefused(CheckpointError):
    """The source has weights only as pickles, which run code when they are read."""


class BadShard(CheckpointError):
    """A safetensors file or index is truncated or malformed."""


class TensorClash(CheckpointError):
    """Two shards hold a tensor of the same name."""


class PathEscapes(CheckpointError):
    """A file name or a symbolic link leads out of the source directory."""


class UnsupportedModel(CheckpointError):
    """The architecture cannot be served."""


class ShardMismatch(CheckpointError):
    """The shards' tensors are not those of the architecture that config.json names."""


class BaseMismatch(CheckpointError):
    """The base of an import is missing, not wanted, or itself an adapter: the request's fault, not the source's."""


class StorageFailed(CheckpointError):
    """A checkpoint could not be written."""


class ImportFailed(CheckpointError):
    """The importing process ended without an answer."""


IMPORT_ERRORS: tuple[type[CheckpointError], ...] = (
    BadAddress, NotACheckpoint, OriginUnreachable, OriginRefused, PickleRefused, BadShard, TensorClash, PathEscapes,
    UnsupportedModel, ShardMismatch, BaseMismatch, StorageFailed, ImportFailed,
)  # fmt: skip
"""What an importing process may answer, by class name."""
