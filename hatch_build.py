"""Compiles protos/ beside its sources when the project is built or installed."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ProtocHook(BuildHookInterface[Any]):
    """Runs protoc with the plain, gRPC and mypy plugins; generated files are git-ignored."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        import grpc_tools  # noqa: PLC0415  present only in the build environment
        from grpc_tools import protoc  # noqa: PLC0415

        root = Path(self.root, "protos")
        include = Path(grpc_tools.__file__).parent / "_proto"
        outputs = [f"--{kind}_out={root}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")]
        files = sorted(str(p.relative_to(root)) for p in root.rglob("*.proto"))
        code = protoc.main(["protoc", f"-I{root}", f"-I{include}", *outputs, *files])
        if code:
            raise SystemExit(f"protoc ended with {code}")
