"""Explanations on the wire, to and from our records."""

from whimbrel.inference.v1 import explanation_pb2 as pb

from mesh.clients.service_wire import service_from, service_to
from mesh.clients.wire import TIERS, duration, seconds, tier_from
from mesh.explanation import Alternative, Explanation, HeldRequest, LearntRate, PastLoad, StartEstimate, Way

WAYS = {
    Way.SLOT: pb.WAY_SLOT,
    Way.JOIN: pb.WAY_JOIN,
    Way.LOAD: pb.WAY_LOAD,
    Way.EVICT: pb.WAY_EVICT,
    Way.WAIT: pb.WAY_WAIT,
    Way.MOVE: pb.WAY_MOVE,
}
_WAYS = {number: way for way, number in WAYS.items()}


def explanation_to(explanation: Explanation) -> pb.Explanation:
    """To the wire."""
    return pb.Explanation(
        model=explanation.model,
        held=map(_held_to, explanation.held),
        waiting=explanation.waiting,
        next=_held_to(explanation.next),
        loads=map(_load_to, explanation.loads),
        rates=map(_rate_to, explanation.rates),
    )


def explanation_from(message: pb.Explanation) -> Explanation:
    """From the wire."""
    return Explanation(
        model=message.model,
        held=tuple(map(_held_from, message.held)),
        waiting=message.waiting,
        next=_held_from(message.next),
        loads=tuple(map(_load_from, message.loads)),
        rates=tuple(LearntRate(one.quantity, one.node, one.of, one.mean_s, one.spread) for one in message.rates),
    )


def _held_to(held: HeldRequest) -> pb.HeldRequest:
    return pb.HeldRequest(
        number=held.number,
        waited=duration(held.waited_s),
        service_class=service_to(held.service),
        position=held.position,
        why=held.why,
        alternatives=map(_alternative_to, held.alternatives),
    )


def _held_from(message: pb.HeldRequest) -> HeldRequest:
    return HeldRequest(
        number=message.number,
        waited_s=seconds(message.waited),
        service=service_from(message.service_class),
        position=message.position,
        why=message.why,
        alternatives=tuple(map(_alternative_from, message.alternatives)),
    )


def _alternative_to(one: Alternative) -> pb.Alternative:
    return pb.Alternative(
        way=WAYS[one.way],
        worker_id=one.worker_id,
        node=one.node,
        estimate=_estimate_to(one.estimate) if one.estimate else None,
        chosen=one.chosen,
        obstacle=one.obstacle,
        evicts=one.evicts,
    )


def _alternative_from(message: pb.Alternative) -> Alternative:
    return Alternative(
        way=_WAYS.get(message.way, Way.WAIT),
        worker_id=message.worker_id,
        node=message.node,
        estimate=_estimate_from(message.estimate) if message.HasField("estimate") else None,
        chosen=message.chosen,
        obstacle=message.obstacle,
        evicts=tuple(message.evicts),
    )


def _estimate_to(estimate: StartEstimate) -> pb.StartEstimate:
    return pb.StartEstimate(
        mean=duration(estimate.mean_s),
        p90=duration(estimate.p90_s),
        io_queue=duration(estimate.io_queue_s),
        device_queue=duration(estimate.device_queue_s),
        dram=duration(estimate.dram_s),
        disk=duration(estimate.disk_s),
        origin=duration(estimate.origin_s),
        init=duration(estimate.init_s),
        prefill=duration(estimate.prefill_s),
    )


def _estimate_from(message: pb.StartEstimate) -> StartEstimate:
    return StartEstimate(
        mean_s=seconds(message.mean),
        p90_s=seconds(message.p90),
        io_queue_s=seconds(message.io_queue),
        device_queue_s=seconds(message.device_queue),
        dram_s=seconds(message.dram),
        disk_s=seconds(message.disk),
        origin_s=seconds(message.origin),
        init_s=seconds(message.init),
        prefill_s=seconds(message.prefill),
    )


def _load_to(load: PastLoad) -> pb.PastLoad:
    return pb.PastLoad(
        worker_id=load.worker_id,
        checkpoint=load.digest,
        tier=TIERS[load.tier],
        predicted=_estimate_to(load.predicted),
        actual=duration(load.actual_s),
    )


def _load_from(message: pb.PastLoad) -> PastLoad:
    return PastLoad(
        worker_id=message.worker_id,
        digest=message.checkpoint,
        tier=tier_from(message.tier),
        predicted=_estimate_from(message.predicted),
        actual_s=seconds(message.actual),
    )


def _rate_to(rate: LearntRate) -> pb.LearntRate:
    return pb.LearntRate(quantity=rate.quantity, node=rate.node, of=rate.of, mean_s=rate.mean_s, spread=rate.spread)
