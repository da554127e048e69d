"""What a gateway is told when one end of a move gives up."""

from mesh.errors import MeshError
from mesh.moves import MoveFailed
from services.worker.engine.errors import (
    EngineError,
    GuideRefused,
    ImportRefused,
    LayoutMismatch,
    NotExportable,
    NotMovable,
    QueueFull,
    RequestRefused,
    StateMismatch,
    UnknownReplica,
    UnknownRequest,
)

REASONS: dict[type[EngineError], str] = {  # the first that fits
    LayoutMismatch: "LAYOUT_MISMATCH",
    StateMismatch: "LAYOUT_MISMATCH",
    ImportRefused: "NO_ROOM",
    NotMovable: "NOT_MOVABLE",
    NotExportable: "NOT_MOVABLE",
    QueueFull: "NO_ROOM",
    UnknownReplica: "REPLICA_NOT_RESIDENT",
    UnknownRequest: "REQUEST_NOT_HERE",
    GuideRefused: "BAD_GUIDE",
    RequestRefused: "REFUSED",
}


def failed(move_id: str, error: Exception) -> MoveFailed:
    """The event that says why. What is neither ours nor the engine's is a fault, ENGINE_FAILED."""
    if isinstance(error, MeshError):
        return MoveFailed(move_id, error.reason, error.message)
    if isinstance(error, EngineError):
        reason = next((reason for kind, reason in REASONS.items() if isinstance(error, kind)), "ENGINE_FAILED")
        return MoveFailed(move_id, reason, str(error))
    return MoveFailed(move_id, "ENGINE_FAILED", f"{type(error).__name__}: {error}; the worker's log has the traceback")


def is_fault(error: Exception) -> bool:
    """Whether nobody foresaw it."""
    return not isinstance(error, MeshError | EngineError)
