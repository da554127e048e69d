"""A worker as a process: what it needs to start."""

import pytest
import torch

from mesh.facts import Kind
from tests.cluster import DidNotStart, process


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
async def test_a_worker_without_the_device_that_it_is_to_own_says_what_is_missing_and_ends(redis_url: str) -> None:
    with pytest.raises(DidNotStart) as ended:
        async with process(Kind.WORKER, redis_url=redis_url, device="cuda"):
            pass
    assert "WHIMBREL_DEVICE is cuda, but this torch" in str(ended.value)
    assert "whimbrel[cuda]" in str(ended.value)
    assert "Traceback" not in str(ended.value)


async def test_a_device_that_nobody_knows_stops_the_start(redis_url: str) -> None:
    with pytest.raises(DidNotStart) as ended:
        async with process(Kind.WORKER, redis_url=redis_url, device="abacus"):
            pass
    assert "WHIMBREL_DEVICE: Input should be 'host' or 'cuda'" in str(ended.value)
