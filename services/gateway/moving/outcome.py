"""How a relocation went, from how each answer's passage did."""

from collections.abc import Sequence

from mesh.moves import Moved, Relocation
from services.gateway.moving.passage import Passage
from services.gateway.moving.way import FINISHED, Over


def outcome_of(relocation: Relocation, passages: Sequence[Passage], overs: Sequence[Over], began_s: float) -> Moved:
    """It has moved if any answer has; each of `overs` is why one did not. It began at `began_s`, in the loop's time."""
    gone = [passage for passage in passages if passage.moved]
    if not gone:
        why = overs[0] if overs else Over(FINISHED, "the answer had ended, or was there")
        return Moved(
            relocation.move_id, passages[0].kind if passages else None, failure_reason=why.reason, failure=why.message
        )
    moves = [passage.told for passage in gone]
    return Moved(
        relocation.move_id,
        kind=gone[0].kind,
        tokens=sum(passage.tokens for passage in gone),
        tokens_there=sum(passage.tokens_there for passage in gone),
        bytes_sent=sum(passage.bytes_sent for passage in gone),
        transfer_s=max(passage.ready_s for passage in gone) - began_s,
        took_s=max(passage.granted_s for passage in gone) - began_s,
        gap_s=max((move.gap_s for move in moves if move), default=0.0),
        exact=all(move.exact for move in moves if move),
    )
