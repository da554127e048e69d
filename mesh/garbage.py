"""The collector of cycles stops every thread of a process while it looks."""

import gc

PAUSE = 10_000  # objects that come and stay between two looks for cycles, of which only gRPC makes any


def spare_requests() -> None:
    """What is here by now it need never look at again; what comes it looks at in longer pauses."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(PAUSE)
