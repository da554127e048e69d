"""What callers see of what can be wrong with a checkpoint."""

import inspect

import pytest

from mesh.checkpoint import errors
from mesh.errors import Broken, DataLoss, InvalidRequest, MeshError, NoRoom, Unreachable, Unsuitable
from services.store.faults import as_mesh_error

SEEN: dict[type[errors.CheckpointError], tuple[type[MeshError], str]] = {
    errors.BadAddress: (InvalidRequest, "BAD_ADDRESS"),
    errors.NotACheckpoint: (InvalidRequest, "NOT_A_CHECKPOINT"),
    errors.PickleRefused: (InvalidRequest, "PICKLE_REFUSED"),
    errors.BadShard: (InvalidRequest, "BAD_SHARD"),
    errors.TensorClash: (InvalidRequest, "TENSOR_CLASH"),
    errors.PathEscapes: (InvalidRequest, "PATH_ESCAPES"),
    errors.UnsupportedModel: (InvalidRequest, "UNSUPPORTED_MODEL"),
    errors.ShardMismatch: (InvalidRequest, "SHARD_MISMATCH"),
    errors.BaseMismatch: (InvalidRequest, "BASE_MISMATCH"),
    errors.ManifestError: (DataLoss, "DAMAGED"),
    errors.Damaged: (DataLoss, "DAMAGED"),
    errors.CorruptUnit: (DataLoss, "CORRUPT_UNIT"),
    errors.StorageFailed: (NoRoom, "STORAGE_FAILED"),
    errors.OriginUnreachable: (Unreachable, "ORIGIN_UNREACHABLE"),
    errors.OriginRefused: (Unsuitable, "ORIGIN_REFUSED"),
    errors.ImportFailed: (Broken, "IMPORT_FAILED"),
}


@pytest.mark.parametrize("kind", SEEN)
def test_each_error_has_its_status_its_reason_and_its_sentence(kind: type[errors.CheckpointError]) -> None:
    arguments = ["x"] * (len(inspect.signature(kind.__init__).parameters) - 1) if "__init__" in vars(kind) else ["x"]
    error = kind(*arguments)
    seen = as_mesh_error(error)
    assert (type(seen), seen.reason) == SEEN[kind]
    assert str(error) in seen.message


def test_no_error_is_forgotten() -> None:
    known = {
        kind
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, errors.CheckpointError) and kind is not errors.CheckpointError
    }
    assert known == set(SEEN)
