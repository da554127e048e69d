"""What a worker takes of a card's memory, and what it says where there is not enough."""

import pytest
import torch

from mesh.errors import Unsuitable
from services.worker.loading.cuda import open_cuda
from services.worker.loading.devices import memory_bytes
from services.worker.settings import DeviceName, WorkerSettings
from tests.services.worker.loading.twins import NO_CARD


def settings(device: DeviceName, memory_bytes: int) -> WorkerSettings:
    """Those of a worker that was told what it has."""
    return WorkerSettings.load(device=device, memory_bytes=memory_bytes)


def test_on_the_host_a_worker_has_what_it_was_told() -> None:
    assert memory_bytes(settings(DeviceName.HOST, 5 << 20)) == 5 << 20


@pytest.mark.gpu
@NO_CARD
def test_a_worker_that_was_not_told_has_most_of_what_is_free_on_the_card() -> None:
    taken = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    free, total = torch.cuda.mem_get_info()
    assert total // 4 < memory_bytes(WorkerSettings.load(device=DeviceName.CUDA)) < free <= total - taken.nbytes


@pytest.mark.gpu
@NO_CARD
def test_a_worker_that_was_told_more_than_the_card_has_does_not_start() -> None:
    total = torch.cuda.mem_get_info()[1]
    with pytest.raises(Unsuitable, match="WHIMBREL_MEMORY_BYTES") as caught:
        memory_bytes(settings(DeviceName.CUDA, 2 * total))
    assert caught.value.reason == "NO_DEVICE_MEMORY"


@pytest.mark.gpu
@NO_CARD
def test_weights_for_which_a_card_has_no_room_are_refused_as_every_device_refuses_them() -> None:
    with pytest.raises(OSError, match="memory"):
        open_cuda().allocate(2 * torch.cuda.mem_get_info()[1])
