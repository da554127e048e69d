"""The messages that several services speak, to and from our records."""

from google.protobuf.duration_pb2 import Duration
from whimbrel.inference.v1 import inference_pb2 as pb

from mesh.errors import InvalidRequest
from mesh.facts import CheckpointSummary, NumericsLevel, RunnerKind, Tier
from mesh.requests import ImportProgress, LoadProgress, Phase, Progress, StartKind, StartTimes

NUMERICS = {
    NumericsLevel.FAST: pb.NUMERICS_LEVEL_FAST,
    NumericsLevel.BATCH_INVARIANT: pb.NUMERICS_LEVEL_BATCH_INVARIANT,
    NumericsLevel.PATH_INVARIANT: pb.NUMERICS_LEVEL_PATH_INVARIANT,
}
TIERS = {
    Tier.ORIGIN: pb.TIER_ORIGIN,
    Tier.DISK: pb.TIER_DISK,
    Tier.DRAM: pb.TIER_DRAM,
    Tier.DEVICE: pb.TIER_DEVICE,
}
START_KINDS = {
    StartKind.WARM: pb.START_KIND_WARM,
    StartKind.DRAM: pb.START_KIND_DRAM,
    StartKind.DISK: pb.START_KIND_DISK,
    StartKind.ORIGIN: pb.START_KIND_ORIGIN,
}
PHASES = {Phase.QUEUED: pb.PHASE_QUEUED, Phase.LOADING: pb.PHASE_LOADING, Phase.READY: pb.PHASE_READY}
RUNNERS = {
    RunnerKind.PACKED: pb.RUNNER_KIND_PACKED,
    RunnerKind.OPAQUE: pb.RUNNER_KIND_OPAQUE,
    RunnerKind.ENCODER: pb.RUNNER_KIND_ENCODER,
}
_NUMERICS = {number: level for level, number in NUMERICS.items()}
_RUNNERS = {number: kind for kind, number in RUNNERS.items()}
_TIERS = {number: tier for tier, number in TIERS.items()}
_START_KINDS = {number: kind for kind, number in START_KINDS.items()}
_PHASES = {number: phase for phase, number in PHASES.items()}


def duration(seconds: float) -> Duration:
    """Seconds as a Duration."""
    message = Duration()
    message.FromNanoseconds(round(seconds * 1e9))
    return message


def seconds(message: Duration) -> float:
    """A Duration in seconds."""
    return message.ToNanoseconds() / 1e9


def numerics_to(level: NumericsLevel | None) -> pb.NumericsLevel.ValueType:
    """To the wire; None is unspecified."""
    return NUMERICS[level] if level else pb.NUMERICS_LEVEL_UNSPECIFIED


def numerics_from(number: pb.NumericsLevel.ValueType) -> NumericsLevel | None:
    """A level; None where it is left to others, or we do not know it."""
    return _NUMERICS.get(number)


def numerics_wanted(number: pb.NumericsLevel.ValueType, field: str) -> NumericsLevel | None:
    """A level that somebody is to keep, or None. InvalidRequest for one that we do not know."""
    if number and number not in _NUMERICS:
        raise InvalidRequest.field(field, "must be FAST, BATCH_INVARIANT, PATH_INVARIANT or unset")
    return numerics_from(number)


def tier_from(number: pb.Tier.ValueType) -> Tier:
    """A tier; one that we do not know is the farthest."""
    return _TIERS.get(number, Tier.ORIGIN)


def runner_to(kind: RunnerKind | None) -> pb.RunnerKind.ValueType:
    """To the wire."""
    return RUNNERS[kind] if kind else pb.RUNNER_KIND_UNSPECIFIED


def runner_from(number: pb.RunnerKind.ValueType) -> RunnerKind | None:
    """A runner; None for one that we do not know."""
    return _RUNNERS.get(number)


def load_progress_to(progress: LoadProgress) -> pb.LoadProgress:
    """To the wire."""
    return pb.LoadProgress(tier=TIERS[progress.tier], bytes_done=progress.bytes_done, bytes_total=progress.bytes_total)


def load_progress_from(message: pb.LoadProgress) -> LoadProgress:
    """From the wire."""
    return LoadProgress(tier_from(message.tier), message.bytes_done, message.bytes_total)


def progress_to(progress: Progress) -> pb.Progress:
    """To the wire."""
    load = load_progress_to(progress.load) if progress.load else None
    return pb.Progress(phase=PHASES[progress.phase], position=progress.position, load=load)


def progress_from(message: pb.Progress) -> Progress:
    """From the wire."""
    load = load_progress_from(message.load) if message.HasField("load") else None
    return Progress(_PHASES.get(message.phase, Phase.QUEUED), message.position, load)


def start_kind_from(number: pb.StartKind.ValueType) -> StartKind:
    """A start kind; one that we do not know is the farthest."""
    return _START_KINDS.get(number, StartKind.ORIGIN)


def start_times_to(times: StartTimes) -> pb.StartTimes:
    """To the wire."""
    return pb.StartTimes(queue=duration(times.queue_s), load=duration(times.load_s))


def start_times_from(message: pb.StartTimes) -> StartTimes:
    """From the wire."""
    return StartTimes(seconds(message.queue), seconds(message.load))


def import_progress_to(progress: ImportProgress) -> pb.ImportProgress:
    """To the wire."""
    return pb.ImportProgress(phase=progress.phase, bytes_done=progress.bytes_done, bytes_total=progress.bytes_total)


def import_progress_from(message: pb.ImportProgress) -> ImportProgress:
    """From the wire."""
    return ImportProgress(message.phase, message.bytes_done, message.bytes_total)


def checkpoint_to(summary: CheckpointSummary, source: str = "") -> pb.Checkpoint:
    """To the wire."""
    return pb.Checkpoint(
        digest=summary.digest,
        bytes=summary.bytes,
        architecture=summary.architecture,
        dtype=summary.dtype,
        max_context=summary.max_context,
        units=summary.units,
        tensors=summary.tensors,
        kv_bytes_per_token=summary.kv_bytes_per_token,
        base=summary.base,
        runner=runner_to(summary.runner),
        source=source,
    )


def checkpoint_from(message: pb.Checkpoint) -> CheckpointSummary:
    """From the wire."""
    return CheckpointSummary(
        digest=message.digest,
        bytes=message.bytes,
        architecture=message.architecture,
        dtype=message.dtype,
        max_context=message.max_context,
        units=message.units,
        tensors=message.tensors,
        kv_bytes_per_token=message.kv_bytes_per_token,
        base=message.base,
        runner=runner_from(message.runner),
    )
