"""Named points of a move at which tests have a process die or stand still, and tokens of which a worker dies. Without
WHIMBREL_FAULTS they are nothing."""

import asyncio
import os
import signal
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path

PAUSE_S = 0.01
POISON = "poison"
_ORDERS = Path(os.environ["WHIMBREL_FAULTS"]) if "WHIMBREL_FAULTS" in os.environ else None


class Point(StrEnum):
    """Where each step of a move begins or ends; the first word says in which process."""

    SCHEDULER_RELOCATES = "scheduler-relocates"  # decided, and not said yet
    SCHEDULER_NOTES = "scheduler-notes"  # told how it ended, and not noted yet
    GATEWAY_EXPECTS = "gateway-expects"  # before the target is told
    GATEWAY_SENDS = "gateway-sends"  # the target has room; before the source is told
    GATEWAY_STOPPED = "gateway-stopped"  # heard that the source stands still
    GATEWAY_READY = "gateway-ready"  # heard that the target is ready; before the new epoch
    GATEWAY_GRANTED = "gateway-granted"  # before the target's first frame is heard
    GATEWAY_RELEASES = "gateway-releases"  # after it; before the source is told
    GATEWAY_REPORTS = "gateway-reports"  # before the scheduler is told
    SOURCE_SENDS = "source-sends"  # told to; before the first block
    SOURCE_STREAMS = "source-streams"  # after each message, or piece
    SOURCE_STOPS = "source-stops"  # after each lap; before it stands still, if little is left
    SOURCE_STOPPED = "source-stopped"  # before the tail
    SOURCE_SENT = "source-sent"  # after the manifest
    TARGET_RESERVES = "target-reserves"  # before it says that there is room
    TARGET_RECEIVES = "target-receives"  # before each message is written, or piece taken
    TARGET_READY = "target-ready"  # before it says so
    TARGET_ADOPTS = "target-adopts"  # granted, before it goes on


def swallow(tokens: Iterable[int]) -> None:
    """Ends this process at once where a file of the name POISON in that directory has one of these numbers in it."""
    if _ORDERS is None or not (poison := _ORDERS / POISON).exists():
        return
    if not {str(token) for token in tokens}.isdisjoint(poison.read_text().split()):
        os.kill(os.getpid(), signal.SIGKILL)


async def reach(point: Point) -> None:
    """Carries out what a file of the point's name in the directory WHIMBREL_FAULTS orders, once: `kill` ends this
    process at once; `hold` makes a file `<point>.held`, and waits until that is gone."""
    if _ORDERS is None:
        return
    order = _ORDERS / point
    try:
        what = order.read_text().strip()
        order.unlink()  # whoever unlinks it has it
    except FileNotFoundError:
        return
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    held = _ORDERS / f"{point}.held"
    held.touch()
    while held.exists():  # noqa: ASYNC110  a file tells of no change
        await asyncio.sleep(PAUSE_S)
