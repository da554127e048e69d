"""Everything the engine raises, as one tree. What becomes of an error on the wire is decided in mesh/errors.py.

EngineError
├── RequestRefused          the request cannot be run here, whatever the load
│   ├── EmptyPrompt
│   ├── NotGenerative
│   ├── PromptTooLong
│   ├── TokenOutOfRange
│   └── GuideRefused        the library cannot compile the guide; the message has its words
├── QueueFull               try again later, or another worker
├── DuplicateRequest
├── UnknownReplica
├── UnknownRequest          no such request is here (any more)
├── NotMovable              the replica keeps no KV in blocks
├── NotExportable           these blocks cannot leave now
├── ImportRefused           a sequence, or a part of it, cannot come in; send its tokens instead
│   ├── LayoutMismatch
│   └── ImportIncomplete
├── DuplicateReplica
├── EngineClosed
├── PoolExhausted           more blocks were asked for than are idle
├── PoolTooSmall            the KV budget does not hold one block
├── NumericsNotHeld         the device does not give the bits that the replica's numerics level promises
├── WeightsMismatch         the tensors do not fit the skeleton
├── StateMismatch           a sequence's state is of another model's make-up
├── UnsupportedArchitecture the model does not fit the runner; the message says why
└── UnsupportedAdapter      the adapter would be applied wrongly to its base; the message says where
"""


class EngineError(Exception):
    """Root of the tree."""


class RequestRefused(EngineError):
    """The request can never run on this replica."""


class EmptyPrompt(RequestRefused):
    """There is no token to start from."""


class PromptTooLong(RequestRefused):
    """Prompt and generated tokens leave no room for one more."""


class NotGenerative(RequestRefused):
    """The model embeds texts; it has no next token."""


class TokenOutOfRange(RequestRefused):
    """A token id lies outside the model's vocabulary."""


class GuideRefused(RequestRefused):
    """No grammar can be made of the guide."""


class QueueFull(EngineError):
    """The replica has as many requests as it may hold."""


class DuplicateRequest(EngineError):
    """A request of this id is already running."""


class UnknownReplica(EngineError):
    """No replica of this name is resident."""


class UnknownRequest(EngineError):
    """No request of this id is here, or it does not arrive here."""


class NotMovable(EngineError):
    """The replica's runner keeps no KV in blocks."""


class NotExportable(EngineError):
    """The blocks are not full yet, or not in the pool any more."""


class ImportRefused(EngineError):
    """The replica cannot take this sequence's KV now."""


class LayoutMismatch(ImportRefused):
    """The KV is of another checkpoint, or laid out otherwise."""


class ImportIncomplete(ImportRefused):
    """A block that the sequence needs has not come."""


class DuplicateReplica(EngineError):
    """A replica of this name is already resident."""


class EngineClosed(EngineError):
    """The engine takes no more work."""


class PoolExhausted(EngineError):
    """A planner's mistake, never a client's: it asked for a block when none was idle."""


class PoolTooSmall(EngineError):
    """The bytes given for KV do not hold one block of this model."""


class NumericsNotHeld(EngineError):
    """The canary's bits depend on what its level says that they do not."""


class WeightsMismatch(EngineError):
    """A tensor is missing, unknown or of another shape than the model expects."""


class StateMismatch(EngineError):
    """A sequence's state was taken from another model, or from another version of transformers."""


class UnsupportedArchitecture(EngineError):
    """The runner would compute something wrong for this model, so it refuses."""


class UnsupportedAdapter(EngineError):
    """What an adapter does to its base cannot be done to some rows of a batch alone."""
