"""What a model's spec asks for beside its checkpoint, checked. Pure."""

from collections.abc import Collection
from dataclasses import replace

from whimbrel.gateway.v1 import gateway_pb2 as pb

from mesh.clients.wire import numerics_wanted, seconds
from mesh.errors import InvalidRequest
from mesh.facts import ModelEntry

ASKED = frozenset(
    {"spec.keep_alive", "spec.numerics", "spec.min_replicas", "spec.max_replicas", "spec.target_concurrency"}
)
UPDATABLE = ASKED | {"spec.checkpoint"}


def check(spec: pb.ModelSpec) -> None:
    """InvalidRequest for what no model can have, before an import's minutes."""
    _keep_alive_s(spec)
    numerics_wanted(spec.numerics, "spec.numerics")
    _check_bounds(spec.min_replicas, spec.max_replicas)


def asked(entry: ModelEntry, spec: pb.ModelSpec, paths: Collection[str] = ASKED) -> ModelEntry:
    """The entry with what these paths of the spec say. InvalidRequest when it cannot be so."""
    if "spec.keep_alive" in paths:
        entry = replace(entry, keep_alive_s=_keep_alive_s(spec))
    if "spec.numerics" in paths:
        entry = replace(entry, numerics=numerics_wanted(spec.numerics, "spec.numerics"))
    if "spec.min_replicas" in paths:
        entry = replace(entry, min_replicas=spec.min_replicas)
    if "spec.max_replicas" in paths:
        entry = replace(entry, max_replicas=spec.max_replicas)
    if "spec.target_concurrency" in paths:
        entry = replace(entry, target_concurrency=spec.target_concurrency)
    if entry.checkpoint.base and entry.numerics:
        raise InvalidRequest.field("spec.numerics", "must be unset for an adapter: it runs at the level of its base")
    _check_bounds(entry.min_replicas, entry.max_replicas)
    return entry


def _keep_alive_s(spec: pb.ModelSpec) -> float | None:
    if not spec.HasField("keep_alive"):
        return None
    keep_alive_s = seconds(spec.keep_alive)
    if keep_alive_s < 0:
        raise InvalidRequest.field("spec.keep_alive", "must not be negative")
    return keep_alive_s


def _check_bounds(min_replicas: int, max_replicas: int) -> None:
    if 0 < max_replicas < min_replicas:
        raise InvalidRequest.field("spec.max_replicas", f"must be 0, or at least min_replicas: {min_replicas}")
