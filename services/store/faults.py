"""What a caller sees of a CheckpointError: one table."""

from mesh.checkpoint import errors
from mesh.errors import Broken, DataLoss, InvalidRequest, MeshError, NoRoom, Unreachable

RETRY_S = 5.0
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


def as_mesh_error(error: errors.CheckpointError) -> MeshError:
    """The error to answer with."""
    for kind, reason in SOURCE_REASONS.items():
        if isinstance(error, kind):
            field = "base" if kind is errors.BaseMismatch else "source"
            return InvalidRequest.field(field, str(error), reason=reason)
    if isinstance(error, errors.CorruptUnit):
        return DataLoss(str(error), reason="CORRUPT_UNIT")
    if isinstance(error, (errors.Damaged, errors.ManifestError)):
        return DataLoss(str(error), reason="DAMAGED")
    if isinstance(error, errors.StorageFailed):
        return NoRoom(str(error), reason="STORAGE_FAILED")
    if isinstance(error, errors.OriginUnreachable):
        return Unreachable(str(error), reason="ORIGIN_UNREACHABLE", retry_after_s=RETRY_S)
    return Broken(str(error), reason="IMPORT_FAILED")
