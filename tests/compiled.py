"""pytest -p tests.compiled: the same tests, with the policy and the simulator as machine code."""

import pytest

import policy
import sim
from mesh.compiled import use


def pytest_load_initial_conftests() -> None:
    """Before anything imports them."""
    if missing := [package.__name__ for package in (policy, sim) if not use(package)]:
        raise pytest.UsageError(f"not compiled as it is now: {', '.join(missing)}; do make compile first")


def pytest_report_header() -> str:
    """What the tests ran with."""
    return "compiled: policy, sim"
