"""What a benchmark ran on, in one record."""

import os
import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("torch", "transformers", "grpcio")
CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True, slots=True)
class Machine:
    """The hardware and the versions that figures depend on."""

    cpu: str
    cores: int  # that this process may use
    memory_bytes: int
    versions: str

    @classmethod
    def here(cls) -> "Machine":
        """This one."""
        python = f"Python {platform.python_version()}"
        return cls(
            cpu=_cpu_name(CPUINFO.read_text() if CPUINFO.exists() else ""),
            cores=cores(),
            memory_bytes=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
            versions=", ".join([python, *(f"{name} {version(name)}" for name in PACKAGES)]),
        )

    def text(self) -> str:
        """One line."""
        return f"{self.cpu}, {self.cores} cores, {self.memory_bytes / 2**30:.0f} GiB; {self.versions}"


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0))


def load_average() -> float:
    """Processes that wanted to run, averaged over the last minute."""
    return os.getloadavg()[0]


def _cpu_name(cpuinfo: str) -> str:
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()
