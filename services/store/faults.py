"""What a caller sees of a CheckpointError: one table."""

from mesh.checkpoint import errors
from mesh.errors import Broken, DataLoss, InvalidRequest, MeshError, NoRoom, Unreachable, Unsuitable

RETRY_S = 5.0
ORIGIN_REFUSED = "ORIGIN_REFUSED"
SOURCE_REASONS: dict[type[errors.CheckpointError], str] = {
    errors.BadAddress: "BAD_ADDRESS",
    errors.NotACheckpoint: "NOT_A_CHECKPOINT",
    errors.PickleRefused: "PICKLE_REFUSED",
    errors.BadShard: "BAD_SHARD",
    errors.TensorClash: "TENSOR_CLASH",
    errors.PathEscapes: "PATH_ESCAPES",
    errors.UnsupportedModel: "UNSUPPORTED_MODEL",
    errors.ShardMismatch: "SHARD_MISMATCH",
    errors.BaseMismatch: "BASE_MISMATCH",
}
"""What is wrong with the directory that an import was told to read, or with its base: the caller's to mend."""

OTHERS: tuple[tuple[type[errors.CheckpointError], type[MeshError], str], ...] = (
    (errors.CorruptUnit, DataLoss, "CORRUPT_UNIT"),
    (errors.Damaged, DataLoss, "DAMAGED"),
    (errors.ManifestError, DataLoss, "DAMAGED"),
    (errors.StorageFailed, NoRoom, "STORAGE_FAILED"),
    (errors.OriginRefused, Unsuitable, ORIGIN_REFUSED),
)
"""The rest, the narrower kind first."""


def as_mesh_error(error: errors.CheckpointError) -> MeshError:
    """The error to answer with."""
    for kind, reason in SOURCE_REASONS.items():
        if isinstance(error, kind):
            field = "base" if kind is errors.BaseMismatch else "source"
            return InvalidRequest.field(field, str(error), reason=reason)
    for kind, becomes, reason in OTHERS:
        if isinstance(error, kind):
            return becomes(str(error), reason=reason)
    if isinstance(error, errors.OriginUnreachable):
        return Unreachable(str(error), reason="ORIGIN_UNREACHABLE", retry_after_s=RETRY_S)
    return Broken(str(error), reason="IMPORT_FAILED")
