"""pytest -p tests.compiled: the same tests, with the policy as machine code."""

import pytest

import policy
from mesh.compiled import use


def pytest_load_initial_conftests() -> None:
    """Before anything imports it."""
    if not use(policy):
        raise pytest.UsageError("the policy is not compiled as it is now; do make compile first")


def pytest_report_header() -> str:
    """What the tests ran with."""
    return "policy: compiled"
