"""Runs a module as a process that dies with its launcher: python -m cli.child LAUNCHER_PID MODULE [ARGUMENT ...]

A preexec_fn would do the same by a fork, which is not safe once gRPC has started in the launcher.
"""

import os
import runpy
import sys

from mesh.child import die_with_parent


def main() -> None:
    """Exit code 1 when the launcher is gone already, else the module's own."""
    launcher_pid, module = int(sys.argv[1]), sys.argv[2]
    die_with_parent()
    if os.getppid() != launcher_pid:  # it ended before the kernel was told
        sys.exit(1)
    del sys.argv[1:3]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
