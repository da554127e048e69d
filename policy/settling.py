"""Brings the books up to date when somebody looks: what is idle, what was to come and will not, who waits for room."""

from collections.abc import Collection, Iterable

from policy.candidates import least_need_bytes
from policy.evacuation import stands
from policy.index import Marks
from policy.ledger import Ledger
from policy.spot import Spot
from policy.view import View


def settled(books: Ledger, now: float) -> View:
    """The moment `now`, once the books say who is idle by then, which claims and plans still stand, and who waits for
    room. Nothing is marked as changed any more."""
    _forgive(books, now)
    books.index.settle()
    marks = books.index.marks
    spots = _changed(books, marks)
    _note_idle(books, spots, now)
    roomed = _void_claims(books, marks)
    _end_yields(books, marks)
    _give_up_plans(books, marks, now)
    books.index.settle()
    books.copying.turn(now)
    books.index.marks = Marks()
    touched, roomier = (None, None) if marks.all else (marks.models, marks.roomier)
    view = books.show(touched, roomier, fresh=frozenset(books.fresh))
    books.fresh.clear()
    _retire(books, view, spots)
    view.note_rest(spots)
    _note_backlog(books, view, now)
    books.demand.advance(now, roomier=marks.all or bool(marks.roomier), roomed=roomed)
    names = books.index.cluster.models.keys() | books.demand.histories.keys() if marks.all else marks.models
    _note_presence(books, names)
    books.tally.note(view, names, now)
    return view


def _forgive(books: Ledger, now: float) -> None:
    """Distrust ends."""
    marks = books.index.marks
    for worker_id in [one for one, until_s in books.distrusted_until_s.items() if until_s <= now]:
        del books.distrusted_until_s[worker_id]
        marks.roomier.add(worker_id)
        marks.models.update(seat.spot.model for seat in books.index.replicas.on(worker_id))
    for digest in [one for one, until_s in books.unfit_until_s.items() if until_s <= now]:
        del books.unfit_until_s[digest]
        marks.models.update(books.index.models_of(digest))


def _changed(books: Ledger, marks: Marks) -> Collection[Spot]:
    """Where something has changed that keep-alive goes by."""
    replicas = books.index.replicas
    if marks.all:
        return {seat.spot for seat in replicas.everywhere()} | marks.spots
    models = marks.entries | (marks.models & books.index.outdated)
    return marks.spots.union(seat.spot for model in models for seat in replicas.seats(model))


def _note_presence(books: Ledger, models: Iterable[str]) -> None:
    replicas = books.index.replicas
    for model in models:
        books.demand.note(model, is_there=bool(replicas.seats(model) or replicas.loads_of(model)))


def _note_idle(books: Ledger, spots: Collection[Spot], now: float) -> None:
    for spot in spots:
        seat = books.index.replicas.seat(spot)
        if seat and seat.is_ready and books.index.replicas.busy(seat) == 0:
            books.idle_since_s.setdefault(spot, now)
        else:
            books.idle_since_s.pop(spot, None)


def _void_claims(books: Ledger, marks: Marks) -> set[str]:
    """Ends those that nothing leaves for any more, or that nobody needs. Returns their models."""
    index = books.index
    claims = {spot for worker_id in marks.workers for spot in index.claims_on(worker_id)}
    claims.update(spot for model in marks.models for spot in index.claims_of(model))
    over = [spot for spot in (index.claims if marks.all else claims) if not _stands(books, spot)]
    for spot in over:
        index.unclaim(spot)
    return {spot.model for spot in over}


def _end_yields(books: Ledger, marks: Marks) -> None:
    """Replicas take requests again once nobody waits for their memory, or it is found elsewhere."""
    for spot, to in list(books.yielding.to.items()):
        seat, entry = books.index.replicas.seat(spot), books.index.models.get(to.model)
        waits = books.queues.of(to.model) and not books.index.replicas.loads_of(to.model)
        current = entry is not None and entry.checkpoint.digest == to.digest
        if not (waits and current and seat and books.index.replicas.settled(seat)):
            books.yielding.drop([spot])
            marks.models.add(spot.model)


def _give_up_plans(books: Ledger, marks: Marks, now: float) -> None:
    """Ends those that the facts have overtaken, and moves to what is gone."""
    for request_id in [one for one, goal in books.moving.goals.items() if not books.index.replicas.seat(goal)]:
        books.stays(request_id)
    for plan in books.moving.evacuations:
        if not stands(books.glance(), plan, now):
            books.moving.drop(plan)
            marks.models.add(plan.spot.model)


def _stands(books: Ledger, claim: Spot) -> bool:
    entry = books.index.models.get(claim.model)
    if entry is None or entry.checkpoint.digest != claim.digest:
        return False
    wanted = bool(books.queues.of(claim.model)) or claim.model in books.index.outdated
    ahead = claim.model in books.tally.short or claim.model in books.demand.closes_s
    return (wanted or ahead or _leaves(books, claim.model)) and books.index.account(claim.worker_id).leaving_bytes > 0


def _leaves(books: Ledger, model: str) -> bool:
    """Whether some of a model's requests run where they are to go from."""
    replicas, leaving = books.index.replicas, books.index.draining()
    return any(seat.spot.worker_id in leaving and replicas.busy(seat) > 0 for seat in replicas.seats(model))


def _retire(books: Ledger, view: View, spots: Collection[Spot]) -> None:
    for spot in spots:
        seat = books.index.replicas.seat(spot)
        if seat and seat.is_ready and view.is_superseded(seat):
            books.retired.add(spot)
        else:
            books.retired.discard(spot)


def _note_backlog(books: Ledger, view: View, now: float) -> None:
    """Which models wait for room: those that somebody waits for, unless for all of these something is under way. One
    that is touched is looked at anyhow: whether it waits after that, is seen once it is touched no more."""
    if view.touched is None:
        books.backlog.clear()
    touched = frozenset(books.queues.models()) if view.touched is None else view.touched
    for model in books.unlined - touched:
        entry, requests = view.entry(model), books.queues.of(model)
        if entry and requests and (books.queues.odd[model] or not view.is_coming(entry, now)):
            books.backlog.put(model, least_need_bytes(view, entry), requests)
        else:
            books.backlog.drop(model)
    books.unlined = {model for model in touched if books.queues.of(model)}
    for model in touched - books.unlined:
        books.backlog.drop(model)
