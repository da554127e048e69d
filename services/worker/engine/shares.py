"""How the KV memory of one engine is divided among its replicas: each brings what was booked for it, and what one
does not need another may use until it does. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Claim:
    """What a replica brings, has and wants, in bytes. It keeps `least` even when it is idle, and can use `most`."""

    booked: int
    share: int
    need: int
    least: int
    most: int


def fair_shares(claims: Sequence[Claim]) -> list[float]:
    """What each may insist on: max-min fairness in proportion to what they bring. Who wants no more than it brought
    gets it; what those leave goes to the others."""
    wants = [min(max(claim.need, claim.least), claim.most) for claim in claims]
    fair = [0.0] * len(claims)
    left, open_claims = float(sum(claim.booked for claim in claims)), list(range(len(claims)))
    while open_claims:
        level = left / sum(claims[i].booked for i in open_claims)
        content = [i for i in open_claims if wants[i] <= level * claims[i].booked]
        for i in content or open_claims:
            fair[i] = wants[i] if content else level * claims[i].booked
            left -= fair[i]
        open_claims = [i for i in open_claims if i not in content] if content else []
    return fair


def rebalance(claims: Sequence[Claim]) -> list[int]:
    """New shares, in bytes: who has less than it may insist on gets it, from what is free and from those who have
    more, in proportion to how much more. Nobody else's share changes."""
    fair = [int(share) for share in fair_shares(claims)]
    short = sum(max(0, mine - claim.share) for mine, claim in zip(fair, claims, strict=True))
    over = [max(0, claim.share - mine) for mine, claim in zip(fair, claims, strict=True)]
    free = sum(claim.booked - claim.share for claim in claims)
    taken = _spread(max(0, short - free), over)
    return [max(mine, claim.share) - part for mine, claim, part in zip(fair, claims, taken, strict=True)]


def _spread(amount: int, over: Sequence[int]) -> list[int]:
    """`amount` in parts, none larger than its `over`, in proportion to it."""
    parts = []
    rest = sum(over)
    for one in over:
        part = min(one, -(-amount * one // rest)) if rest else 0
        parts.append(part)
        amount, rest = amount - part, rest - one
    return parts
