"""Embedding, seen from the event loop: the engine's refusals as our errors, and a caller that may leave."""

import asyncio
from collections.abc import Sequence

from mesh.errors import Broken, InvalidRequest, MeshError, NotFound, Unreachable
from mesh.requests import Pooling
from services.worker.engine.embed_queue import Vectors
from services.worker.engine.engine import Engine
from services.worker.engine.errors import EngineClosed, EngineError, RequestRefused, UnknownReplica


async def embed(engine: Engine, replica: str, inputs: Sequence[Sequence[int]], pooling: Pooling) -> Vectors:
    """A vector for each input, in order. Being cancelled ends the work after its current batch."""
    try:
        job = engine.embed(replica, inputs, pooling)
    except EngineError as error:
        raise _refusal(error) from error
    try:
        return await asyncio.wrap_future(job.done)
    except EngineError as error:
        raise _refusal(error) from error
    except (RuntimeError, MemoryError) as error:  # torch's: out of memory, a kernel's refusal
        raise Broken(f"embedding failed: {error}", reason="ENGINE_FAILED") from error
    finally:
        job.left = True


def _refusal(error: EngineError) -> MeshError:
    match error:
        case UnknownReplica():
            return NotFound(str(error), reason="REPLICA_NOT_RESIDENT")
        case EngineClosed():
            return Unreachable(str(error), reason="DRAINING", retry_after_s=1.0)
        case RequestRefused():
            return InvalidRequest.field("inputs", str(error))
        case _:
            return Broken(str(error))
