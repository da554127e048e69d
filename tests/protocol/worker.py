"""The model's worker: what it makes of a command, and what it does by itself."""

from collections.abc import Iterator

from tests.protocol.world import (
    NO_MOVE,
    Abandoned,
    Arrival,
    Cancelled,
    Carried,
    Command,
    Expected,
    Granted,
    News,
    Run,
    Said,
    Scope,
    Sent,
    Tokens,
    Told,
    Worker,
    World,
    put,
)


def obey(world: World, me: int, command: Command, line: int, scope: Scope) -> World:
    """What a worker makes of a command that came on a line."""
    match command:
        case Granted():
            return _owned(world, me, command, line, scope)
        case Cancelled(epoch):
            run = world.workers[me].run
            return _with(world, me, run=None) if run and run.epoch <= epoch else world
        case Expected(move, kind, log):
            world = say(_with(world, me, arrival=Arrival(move, line)), me, line, Told(move, "reserved"))
            return _warmed(world, me, move, log) if kind == "tokens" else world
        case Sent():
            return _sending(world, me, command, line)
        case Abandoned(move):
            return _abandoned(world, me, move)


def steps(world: World, me: int, scope: Scope) -> Iterator[tuple[str, World]]:
    """What a worker may do next. It draws no token while too many of its words are unheard: so the search ends."""
    run = world.workers[me].run
    if run is None:
        return
    if not run.paused and len(world.up[me]) < scope.queue:
        yield "draws", _drawn(world, me, run, scope)
    if run.sending and run.kind == "kv" and not run.paused:
        stopped = _with(world, me, run=run._replace(paused=True))
        yield "stops", say(stopped, me, run.line, Told(run.sending, "stopped"))
    elif run.sending and world.workers[run.target].life == "dead":
        yield "cannot send", failed_to_send(world, me)
    elif run.sending:
        yield "sends", _carried(world, me, run)


def arrived(world: World, carried: Carried) -> World:
    """The target takes what the source had."""
    arrival = world.workers[carried.target].arrival
    if arrival is None or arrival.move != carried.move:
        return world
    return _warmed(world, carried.target, carried.move, carried.tokens)


def lapsed(world: World, me: int) -> World:
    """A target gives the room of a move back, and says so."""
    arrival = world.workers[me].arrival
    assert arrival
    return say(_with(world, me, arrival=None), me, arrival.line, Told(arrival.move, "failed"))


def failed_to_send(world: World, me: int) -> World:
    """A source's stream to its target has broken."""
    run = world.workers[me].run
    assert run
    world = say(world, me, run.line, Told(run.sending, "failed"))
    return _with(world, me, run=run._replace(sending=NO_MOVE))


def line_ended(world: World, me: int, line: int) -> World:
    """What was granted, or expected, on a line ends with it."""
    run, arrival = world.workers[me].run, world.workers[me].arrival
    if run and run.line == line:
        world = _with(world, me, run=None)
    return _with(world, me, arrival=None) if arrival and arrival.line == line else world


def say(world: World, me: int, line: int, news: News) -> World:
    """With a word on its way to the gateway, if that still reads the line."""
    if world.gateway.lines[me] != line or world.gateway.ended:
        return world
    return world._replace(up=put(world.up, me, (*world.up[me], news)))


def _with(world: World, me: int, **changed: object) -> World:
    return world._replace(workers=put(world.workers, me, world.workers[me]._replace(**changed)))  # type: ignore[arg-type]


def _owned(world: World, me: int, grant: Granted, line: int, scope: Scope) -> World:
    """Goes on from the gateway's log, and from what is here beyond it."""
    run, arrival = world.workers[me].run, world.workers[me].arrival
    if run and run.epoch >= grant.epoch:
        return world
    here = run.tokens if run else ()
    if arrival and arrival.move == grant.move:
        here, arrival = arrival.tokens or here, None
    tokens = _reconciled(here, grant.log, scope)
    over = len(tokens) == scope.length
    mine = None if over else Run(grant.epoch, line, tokens)
    world = world._replace(workers=put(world.workers, me, Worker("well", mine, arrival)))
    if not over and (len(tokens) <= len(grant.log) or not scope.rules.replay):
        return world
    return say(world, me, line, Said(grant.epoch, len(grant.log), tokens, over))


def _reconciled(here: Tokens, log: Tokens, scope: Scope) -> Tokens:
    if scope.rules.truncation:
        return here if here[: len(log)] == log else log
    return here if len(here) >= len(log) else log


def _sending(world: World, me: int, send: Sent, line: int) -> World:
    run = world.workers[me].run
    if run is None or run.epoch != send.epoch or run.paused:
        return say(world, me, line, Told(send.move, "failed"))
    return _with(world, me, run=run._replace(sending=send.move, kind=send.kind, target=send.target))


def _abandoned(world: World, me: int, move: int) -> World:
    run, arrival = world.workers[me].run, world.workers[me].arrival
    if run and run.sending == move:
        world = _with(world, me, run=run._replace(sending=NO_MOVE))
    return _with(world, me, arrival=None) if arrival and arrival.move == move else world


def _drawn(world: World, me: int, run: Run, scope: Scope) -> World:
    tokens = (*run.tokens, 10 * run.epoch + me)
    over = len(tokens) == scope.length
    world = _with(world, me, run=None if over else run._replace(tokens=tokens))
    return say(world, me, run.line, Said(run.epoch, len(run.tokens), tokens, over))


def _carried(world: World, me: int, run: Run) -> World:
    world = _with(world, me, run=run._replace(sending=NO_MOVE))
    if world.workers[run.target].life != "well":
        return world
    return world._replace(carried=(*world.carried, Carried(run.sending, run.target, run.tokens)))


def _warmed(world: World, me: int, move: int, tokens: Tokens) -> World:
    arrival = world.workers[me].arrival
    assert arrival
    world = _with(world, me, arrival=arrival._replace(tokens=tokens))
    return say(world, me, arrival.line, Told(move, "ready"))
