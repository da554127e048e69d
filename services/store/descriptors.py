"""How many files this process may have open: each segment of shared memory takes one."""

import resource

import structlog

from mesh.errors import Unsuitable

log = structlog.get_logger()
OTHERS = 512  # connections, part files, libraries


def raise_limit(dram_bytes: int, segment_bytes: int) -> None:
    """Raises our soft limit to the hard one. Raises Unsuitable when that is too few for a pool of whole segments."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    needed = -(-dram_bytes // segment_bytes) + OTHERS
    if hard != resource.RLIM_INFINITY and needed > hard:
        raise Unsuitable(
            f"a pool of {dram_bytes} bytes in segments of {segment_bytes} needs {needed} open files, and this process "
            f"may have {hard}; raise its limit (ulimit -n, LimitNOFILE) or WHIMBREL_SEGMENT_BYTES",
            reason="DESCRIPTORS",
        )
