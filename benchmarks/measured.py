"""What every benchmark's run begins and ends with: the machine as it is, and a plain word when nothing came of it."""

import asyncio
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

from benchmarks.machine import Machine
from benchmarks.report import say_machine
from benchmarks.series import BenchmarkBroken
from mesh.errors import MeshError

T = TypeVar("T")


def measured(name: str, measuring: Coroutine[Any, Any, T]) -> T:
    """The figures, between two looks at the machine; exits with 1 where they could not be had."""
    say_machine(Machine.here())
    try:
        figures = asyncio.run(measuring)
    except (MeshError, BenchmarkBroken) as error:
        sys.exit(f"benchmarks.{name}: {error}")
    say_machine(Machine.here())
    return figures
