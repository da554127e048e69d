"""Whether an answer can be guided as asked: said before the request waits for anything. Following is the worker's."""

import asyncio

from whimbrel.inference.v1 import inference_pb2 as pb

from mesh.clients.sampling_wire import guide_from
from mesh.errors import InvalidRequest, Unsuitable
from mesh.grammar import fault_of
from services.gateway.texts import Text

MOST_CHARS = 1 << 16
BAD_GUIDE = "BAD_GUIDE"


async def check_guide(asked: pb.SamplingParams, text: Text) -> None:
    """Raises InvalidRequest with the library's words for a guide that no answer can keep to, Unsuitable for a model
    whose tokens do not spell every text."""
    if not asked.HasField("guide"):
        return
    guide = guide_from(asked)
    field = f"sampling.guide.{asked.guide.WhichOneof('kind') or 'kind'}"
    if guide is None:
        raise InvalidRequest.field(field, "must be a schema, an expression, or json_object = true", reason=BAD_GUIDE)
    if len(guide.text) > MOST_CHARS:
        raise InvalidRequest.field(field, f"must be at most {MOST_CHARS} characters", reason=BAD_GUIDE)
    if fault := await asyncio.to_thread(fault_of, guide):
        raise InvalidRequest.field(field, fault, reason=BAD_GUIDE)
    if text.spelling is None or not text.spelling.has_bytes:
        message = "a guide needs a tokenizer that knows every byte, which this model has not; ask without one"
        raise Unsuitable(message, reason="NO_TOKENIZER")
