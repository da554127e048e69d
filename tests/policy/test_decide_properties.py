"""What holds of every decision, whatever the cluster looks like."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mesh.facts import ClusterFacts, Member, ModelEntry, ReplicaFacts, ReplicaState, Tier
from policy.actions import Load, LoadReason, Place, RefusalReason, Refuse, Unload
from policy.decide import decide
from policy.index import Index
from policy.knobs import Knobs
from policy.size import need_bytes, version_of
from policy.succession import succession, successions
from policy.view import Seat, Spot, View, Waiting
from tests.policy.scene import WEIGHTS, cluster, fence, model, nearest_source, replica, store, worker

THOROUGH = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
KNOBS = Knobs(keep_alive_s=30.0, hold_s=50.0, max_waiting=2, distrust_s=5.0)
NOW = 100.0
NAMES, NODES = ("a", "b", "c"), ("n1", "n2")
ADAPTER = "c"  # now and then, of a@1
KV = 2
MOMENTS = st.integers(0, 130).map(float)


@st.composite
def entries(draw: st.DrawFn, name: str, base: str) -> ModelEntry:
    """A model of one of two checkpoints, which may have had the other before. With a `base`, c is an adapter, and says
    what that takes."""
    number = draw(st.integers(1, 2))
    keep_alive_s = draw(st.sampled_from([None, 0.0, 5.0, 1000.0]))
    return model(
        name,
        digest=f"{name}@{number}",
        weights=WEIGHTS if base.startswith(name) else draw(st.integers(1, 12)),
        keep_alive_s=keep_alive_s,
        previous=draw(st.sampled_from(["", f"{name}@{3 - number}"])),
        base=base if name == ADAPTER else "",
    )


@st.composite
def workers(draw: st.DrawFn, worker_id: str, base: str) -> Member:
    """A worker whose replicas fit its memory; of a model it may have two versions. With a `base`, c is an adapter."""
    memory, replicas, used = draw(st.integers(8, 40)), [], 0
    for name, version in draw(st.permutations([(name, version) for name in NAMES for version in (1, 2)]))[:4]:
        state = draw(st.sampled_from(ReplicaState))
        size = draw(st.integers(3, 14)) if state is not ReplicaState.LOADING else draw(st.sampled_from([0, 6]))
        if draw(st.booleans()) and used + size <= memory:
            running, waiting = draw(st.sampled_from([(0, 0), (0, 0), (1, 0), (1, 1)]))
            digest = f"{name}@{version}"
            replicas.append(replica(name, digest=digest, state=state, size=size, running=running, waiting=waiting))
            used += size
    if base:
        bases = [r for r in replicas if r.digest == base]
        adapters = [replace(r, base=base, beside=bases[0].model) for r in replicas if r.model == ADAPTER and bases]
        replicas = [r for r in replicas if r.model != ADAPTER] + adapters
    return worker(worker_id, *replicas, node=draw(st.sampled_from(NODES)), memory=memory, slots=draw(st.integers(1, 3)))


@st.composite
def stores(draw: st.DrawFn, store_id: str) -> Member:
    """A store that holds some of the checkpoints."""
    digests = draw(st.lists(st.sampled_from([f"{n}@{v}" for n in NAMES for v in (1, 2)]), unique=True))
    return store(
        store_id, *digests, node=draw(st.sampled_from(NODES)), tier=draw(st.sampled_from([Tier.DISK, Tier.DRAM]))
    )


@st.composite
def views(draw: st.DrawFn) -> View:
    """A moment that can be: what runs fits, what is under way is so somewhere."""
    base = draw(st.sampled_from(["", "a@1"]))
    members = [draw(workers(f"w{n}", base)) for n in range(draw(st.integers(0, 3)))]
    sources = [draw(stores(f"s{n}")) for n in range(draw(st.integers(0, 2)))]
    models = [draw(entries(name, base)) for name in NAMES if draw(st.integers(0, 4))]
    members = [_fitting(member, models) for member in members]
    facts = cluster([*members, *sources], models)
    spots = [Spot(m.id, r.model, r.digest) for m in members if m.worker for r in m.worker.replicas]
    view = View(
        facts,
        waiting=draw(waiting(tuple(m.id for m in members))),
        placed=draw(st.dictionaries(st.sampled_from(spots), st.integers(1, 3), max_size=3)) if spots else {},
        unloading=draw(st.frozensets(st.sampled_from(spots), max_size=2)) if spots else frozenset(),
        distrusted_until_s=draw(st.dictionaries(st.sampled_from(["w0", "w1"]), MOMENTS, max_size=2)),
        unfit_until_s=draw(st.dictionaries(st.sampled_from(["a@1", "a@2", "b@2"]), MOMENTS, max_size=1)),
    )
    since = {seat.spot: float(draw(st.integers(0, int(NOW)))) for seat in view.seats() if view.idle(seat)}
    older = [seat.spot for seat in view.seats() if seat.replica.digest != _current(view, seat.replica.model)]
    retired = draw(st.frozensets(st.sampled_from(older), max_size=1)) if older else frozenset()
    return replace(view, idle_since_s=since, retired=retired, loading=draw(loads(view, members)))


def _current(view: View, name: str) -> str:
    entry = view.cluster.models.get(name)
    return entry.checkpoint.digest if entry else ""


@st.composite
def waiting(draw: st.DrawFn, worker_ids: tuple[str, ...]) -> tuple[Waiting, ...]:
    """Requests, oldest first."""
    moments = sorted(draw(st.lists(st.integers(20, int(NOW)).map(float), max_size=7)))
    fences = [fence(worker_id) for worker_id in worker_ids]
    excluded = st.frozensets(st.sampled_from(fences), max_size=1) if fences else st.just(frozenset[int]())
    names, only = st.sampled_from((*NAMES, "unknown")), st.sampled_from([False, False, True])
    return tuple(
        Waiting(f"r{n}", draw(names), since_s, draw(excluded), draw(only)) for n, since_s in enumerate(moments)
    )


@st.composite
def loads(draw: st.DrawFn, view: View, members: list[Member]) -> frozenset[Spot]:
    """Loads under way that fit their workers."""
    chosen: set[Spot] = set()
    for member in members:
        for name in NAMES:
            spot = Spot(member.id, name, _current(view, name))
            fits = (
                name in view.cluster.models
                and committed(replace(view, loading=frozenset({*chosen, spot})), member) >= 0
            )
            if draw(st.booleans()) and fits and spot not in view.unloading:
                chosen.add(spot)
    return frozenset(chosen)


def committed(view: View, member: Member) -> int:
    """Memory left on a worker when every load under way has come to its end, whoever began it."""
    assert member.worker
    shown = {(r.model, r.digest): r.bytes for r in member.worker.replicas}
    loads = {(s.model, s.digest) for s in view.loading if s.worker_id == member.id}
    for one in member.worker.replicas:
        if one.state is ReplicaState.LOADING and Spot(member.id, one.model, one.digest) not in view.unloading:
            loads.add((one.model, one.digest))
    coming: dict[tuple[str, str], int] = {}
    for name, digest in loads:
        if (version := version_of(view, Spot(member.id, name, digest))) is None:
            continue
        coming[name, digest] = version.bytes + (0 if version.base else member.worker.kv_bytes)
        there = [r for r in member.worker.replicas if r.digest == version.base]
        ready = {Spot(member.id, r.model, r.digest) for r in there if r.state is ReplicaState.READY}
        stays = ready - view.unloading
        if version.base and not stays and not any(other == version.base for _, other in loads):
            coming[there[0].model if there else "", version.base] = version.base_bytes + member.worker.kv_bytes
    everything = {name: max(shown.get(name, 0), coming.get(name, 0)) for name in {*shown, *coming}}
    return member.worker.memory_bytes - sum(everything.values())


def _fitting(member: Member, models: list[ModelEntry]) -> Member:
    """A worker without the loads that could not have begun there."""
    facts = member.worker
    if facts is None or committed(View(cluster([member], models)), member) >= 0:
        return member
    return replace(
        member, worker=replace(facts, replicas=tuple(r for r in facts.replicas if r.state is not ReplicaState.LOADING))
    )


def member_of(view: View, worker_id: str) -> Member:
    """A worker by its id."""
    return view.cluster.members[f"worker/{worker_id}"]


def replica_of(view: View, spot: Spot) -> ReplicaFacts | None:
    """A replica by its spot."""
    facts = member_of(view, spot.worker_id).worker
    return facts.replica(spot.model, spot.digest) if facts else None


def open_seats(view: View, request: Waiting) -> list[Seat]:
    """Replicas of any version that has not been retired, with a slot that this request may take."""
    entry = view.cluster.models.get(request.model)
    if entry is None:
        return []
    current = [seat for seat in view.seats(entry.name) if seat.replica.digest == entry.checkpoint.digest]
    seats = current if request.current_only else [*current, *view.former(entry)]
    usable = [seat for seat in seats if view.settled(seat) and seat.member.fence not in request.excluded]
    return [seat for seat in usable if view.crowd(seat) < seat.slots]


def shuffled(facts: Mapping[str, Member]) -> dict[str, Member]:
    """An equal mapping in another order."""
    return dict(sorted(facts.items(), reverse=True))


@THOROUGH
@given(views())
def test_equal_views_give_equal_decisions(view: View) -> None:
    twin = replace(view, cluster=ClusterFacts(shuffled(view.cluster.members), dict(view.cluster.models)))
    assert twin == view
    assert decide(view, NOW, KNOBS) == decide(twin, NOW, KNOBS)


@THOROUGH
@given(views())
def test_every_request_gets_at_most_one_answer_and_only_those_that_wait_get_one(view: View) -> None:
    answered = Counter(a.request_id for a in decide(view, NOW, KNOBS).actions if isinstance(a, Place | Refuse))
    assert set(answered) <= {r.request_id for r in view.waiting}
    assert set(answered.values()) <= {1}


@THOROUGH
@given(views())
def test_a_request_is_placed_only_on_a_ready_replica_with_a_free_slot_that_it_does_not_exclude(view: View) -> None:
    requests = {r.request_id: r for r in view.waiting}
    busy = Counter(view.placed)
    for action in decide(view, NOW, KNOBS).actions:
        if isinstance(action, Place):
            asked, spot = requests[action.request_id], action.spot
            there, worker_facts = replica_of(view, spot), member_of(view, spot.worker_id).worker
            assert there
            assert worker_facts
            assert (there.state, spot.model) == (ReplicaState.READY, asked.model)
            assert spot not in view.unloading | view.loading
            assert fence(spot.worker_id) not in asked.excluded
            assert max(there.running + there.waiting, busy[spot]) < worker_facts.slots
            busy[spot] += 1


@THOROUGH
@given(views())
def test_no_workers_memory_is_promised_twice(view: View) -> None:
    loaded = [a for a in decide(view, NOW, KNOBS).actions if isinstance(a, Load)]
    after = replace(view, loading=view.loading | {a.spot for a in loaded})
    assert all(committed(after, member_of(view, a.spot.worker_id)) >= 0 for a in loaded)


@THOROUGH
@given(views())
def test_a_load_names_a_store_that_has_or_can_fetch_the_bytes_and_a_worker_without_the_model(view: View) -> None:
    stores_now = view.cluster.of_kind(store("s").kind)
    for action in (a for a in decide(view, NOW, KNOBS).actions if isinstance(a, Load)):
        holder, spot = view.cluster.members[f"store/{action.store_id}"], action.spot
        assert holder.store
        wanted = {spot.digest, action.base} - {""}
        assert any(s.store and s.store.tier_of(spot.digest) for s in stores_now)
        near = holder.node == member_of(view, spot.worker_id).node
        assert near or any(holder.store.tier_of(digest) for digest in wanted)
        assert spot.digest == view.cluster.models[spot.model].checkpoint.digest
        assert replica_of(view, spot) is None
        assert view.distrusted_until_s.get(spot.worker_id, NOW) <= NOW


@THOROUGH
@given(views())
def test_a_model_is_loaded_once_at_a_time_but_for_its_line_and_never_twice_on_a_worker(view: View) -> None:
    view = replace(view, waiting=tuple(replace(r, excluded=frozenset()) for r in view.waiting))
    loads = [a for a in decide(view, NOW, KNOBS).actions if isinstance(a, Load)]
    assert len({load.spot for load in loads} | view.loading) == len(loads) + len(view.loading)
    first = Counter(load.spot.model for load in loads if load.reason is not LoadReason.SCALE_OUT)
    assert set(first.values()) <= {1}
    assert not set(first) & {spot.model for spot in view.loading}
    more = Counter(load.spot.model for load in loads if load.reason is LoadReason.SCALE_OUT)
    assert all(count < len(view.queues.of(model)) for model, count in more.items())


@THOROUGH
@given(views())
def test_nothing_busy_is_ever_unloaded_and_nothing_twice(view: View) -> None:
    actions = decide(view, NOW, KNOBS).actions
    placed = {a.spot for a in actions if isinstance(a, Place)}
    unloaded = [a.spot for a in actions if isinstance(a, Unload)]
    assert len(set(unloaded)) == len(unloaded)
    for spot in unloaded:
        there = replica_of(view, spot)
        assert there
        assert there.state is ReplicaState.READY
        assert there.running + there.waiting + view.placed.get(spot, 0) == 0
        assert spot not in placed | view.loading | view.unloading


@THOROUGH
@given(views())
def test_nobody_waits_while_a_worker_stands_free_for_the_model(view: View) -> None:
    actions = decide(view, NOW, KNOBS).actions
    answered = {a.request_id for a in actions if isinstance(a, Place | Refuse)}
    after = replace(view, loading=view.loading | {a.spot for a in actions if isinstance(a, Load)})
    for held in (r for r in view.waiting if r.request_id not in answered):
        entry = view.cluster.models[held.model]
        stores_now = view.cluster.of_kind(store("s").kind)
        if after.is_loading(entry, NOW, held.excluded) or not nearest_source(stores_now, entry.checkpoint.digest, ""):
            continue
        if view.is_unfit(entry.checkpoint.digest, NOW) and not held.current_only and view.former(entry):
            continue  # a former version is to answer it
        for member in view.workers():
            worker_facts = member.worker
            assert worker_facts
            if member.fence in held.excluded or view.distrusts(member.id, NOW):
                continue
            if worker_facts.replica(held.model, entry.checkpoint.digest):
                continue
            if entry.checkpoint.base and not nearest_source(stores_now, entry.checkpoint.base, ""):
                continue
            assert committed(after, member) < need_bytes(after, entry, member, worker_facts)


@THOROUGH
@given(views())
def test_until_it_looks_again_time_alone_changes_nothing(view: View) -> None:
    decision = decide(view, NOW, KNOBS)
    look_again_s = decision.look_again_s
    if decision.actions:
        return
    moments = [1e9] if look_again_s is None else [(NOW + look_again_s) / 2, math.nextafter(look_again_s, 0.0)]
    for moment in moments:
        assert decide(view, moment, KNOBS) == decision
    if look_again_s is not None:
        later = decide(view, look_again_s, KNOBS)
        assert look_again_s > NOW
        bands = {at_s for _, at_s in decision.again}  # of a higher one, somebody may go before others
        ends = {*view.distrusted_until_s.values(), *view.unfit_until_s.values()}
        assert later.actions or look_again_s in ends | bands


@THOROUGH
@given(views())
def test_no_request_is_refused_while_a_version_of_its_model_has_a_slot_for_it(view: View) -> None:
    requests = {r.request_id: r for r in view.waiting}
    actions = decide(view, NOW, KNOBS).actions
    full = replace(
        view, index=Index(), placed=Counter(view.placed) + Counter(a.spot for a in actions if isinstance(a, Place))
    )
    for action in actions:
        if isinstance(action, Refuse):
            assert not open_seats(full, requests[action.request_id])


@THOROUGH
@given(views())
def test_while_a_version_answers_nobody_is_told_that_its_model_cannot_be_had(view: View) -> None:
    requests = {r.request_id: r for r in view.waiting}
    for action in (a for a in decide(view, NOW, KNOBS).actions if isinstance(a, Refuse)):
        asked = requests[action.request_id]
        entry = view.cluster.models.get(asked.model)
        if entry and not asked.current_only:
            usable = [seat for seat in view.former(entry) if seat.member.fence not in asked.excluded]
            assert not usable or action.reason in {RefusalReason.QUEUE_FULL, RefusalReason.HELD_TOO_LONG}


@THOROUGH
@given(views())
def test_a_former_version_takes_requests_only_until_the_current_one_answers(view: View) -> None:
    requests = {r.request_id: r for r in view.waiting}
    for action in (a for a in decide(view, NOW, KNOBS).actions if isinstance(a, Place)):
        entry, asked = view.cluster.models[action.spot.model], requests[action.request_id]
        if action.spot.digest == entry.checkpoint.digest:
            continue
        assert action.spot not in view.retired
        assert not asked.current_only
        assert not view.answers(entry)


@THOROUGH
@given(views())
def test_an_update_never_stops_for_want_of_a_request(view: View) -> None:
    """While a former version answers, the next step is under way, or is taken, or is named, or there is none."""
    actions = decide(view, NOW, KNOBS).actions
    for entry in successions(view):
        plan = succession(view, entry, NOW, KNOBS)
        assert all(spot.digest != entry.checkpoint.digest for spot in plan.retiring)
        if plan.actions and not view.waiting:
            spots = {action.spot for action in actions if isinstance(action, Load | Unload)}
            assert {action.spot for action in plan.actions} & spots
