"""One torch thread: tests run side by side, and tiny models gain nothing from more."""

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
