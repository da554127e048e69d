"""The deadline of the call being served, carried to every call made for it. gRPC does not do this by itself."""

import asyncio
from contextvars import ContextVar

_ends_s: ContextVar[float | None] = ContextVar("deadline", default=None)


def set_left(seconds: float | None) -> None:
    """Says how long the call being served has left; None is forever."""
    _ends_s.set(None if seconds is None else asyncio.get_running_loop().time() + seconds)


def left(own_s: float | None) -> float | None:
    """Seconds that a call made now may take: its own limit or what the served call has left, whichever is less."""
    ends_s = _ends_s.get()
    if ends_s is None:
        return own_s
    inherited_s = max(0.0, ends_s - asyncio.get_running_loop().time())
    return inherited_s if own_s is None else min(own_s, inherited_s)
