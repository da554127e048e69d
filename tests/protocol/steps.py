"""Every state that can follow a state: what happens by itself, and faults, of which there are only so many."""

from collections.abc import Iterator

from tests.protocol.gateway import died, hear, lose
from tests.protocol.ownership import begun, ended, given_up
from tests.protocol.worker import arrived, failed_to_send, lapsed, line_ended, obey, steps
from tests.protocol.world import NO_MOVE, Carried, Gateway, Granted, Run, Scope, Worker, World, put

Step = tuple[str, World]


def start(scope: Scope) -> World:
    """The first worker has just been granted the request."""
    nothing = ((),) * scope.workers
    gateway = Gateway(1, scope.log, False, 0, tuple(range(1, scope.workers + 1)))
    return World(
        gateway=gateway,
        workers=(Worker(),) * scope.workers,
        down=((Granted(1, scope.log, NO_MOVE),), *nothing[1:]),
        up=nothing,
        former=(None,) * scope.workers,
        lines_opened=scope.workers,
    )


def quiet(world: World, scope: Scope) -> Iterator[Step]:
    """What happens where nothing more goes wrong."""
    for me, worker in enumerate(world.workers):
        if worker.life == "well":
            yield from _works(world, me, scope)
        elif world.gateway.lines[me] and not world.gateway.ended:
            yield from ((f"gateway misses {me}", after) for after in lose(world, me, scope))
        if news := world.up[me]:
            yield f"gateway hears {news[0]}", hear(_heard(world, me), news[0], scope)
    for carried in world.carried:
        yield f"{carried.target} takes {carried}", _take(world, carried)
    yield from _decides(world, scope)


def faults(world: World, scope: Scope) -> Iterator[Step]:
    """What may go wrong next."""
    if world.faults == scope.faults or world.gateway.ended:
        return
    worse = world._replace(faults=world.faults + 1)
    for me, worker in enumerate(world.workers):
        if worker.life == "well":
            yield from (
                (what, after) for what, after in _strikes(worse, me, worker, scope) if what.split()[0] in scope.of
            )
    if "leave" in scope.of:
        yield "leave", ended(worse, scope)
    if "crash" in scope.of and not any(world.former):
        yield "the gateway dies", died(worse)
    if "cut" in scope.of:
        yield from ((f"cut {one.target}", _cut(worse, one)) for one in world.carried)


def echoes(world: World, scope: Scope) -> Iterator[Step]:
    """What was said once, and comes again, at any later time."""
    for worker, news in world.echoes:
        rest = world._replace(echoes=tuple(one for one in world.echoes if one != (worker, news)))
        yield f"gateway hears again {news}", hear(rest, news, scope)


def idle(world: World) -> bool:
    """Whether the answer is over, and nobody holds anything of it."""
    held = any(one.run or one.arrival for one in world.workers if one.life == "well")
    return world.gateway.ended and not held


def owners(world: World) -> int:
    """Workers whose frames count."""
    epoch = world.gateway.epoch
    return sum(bool(one.run and one.run.epoch == epoch) for one in world.workers if one.life == "well")


def _works(world: World, me: int, scope: Scope) -> Iterator[Step]:
    for what, after in steps(world, me, scope):
        yield f"{me} {what}", after
    if commands := world.down[me]:
        rest = world._replace(down=put(world.down, me, commands[1:]))
        yield f"{me} obeys {commands[0]}", obey(rest, me, commands[0], world.gateway.lines[me], scope)
    if former := world.former[me]:
        line, left = former
        yield f"{me} hears that line {line} has ended", line_ended(_forgotten(world, me), me, line)
        if left:
            rest = world._replace(former=put(world.former, me, (line, left[1:])))
            yield f"{me} obeys, late, {left[0]}", obey(rest, me, left[0], line, scope)
    elif _overdue(world, me):
        yield f"{me} lets the move lapse", lapsed(world, me)


def _decides(world: World, scope: Scope) -> Iterator[Step]:
    gateway, move = world.gateway, world.gateway.move
    if gateway.ended:
        return
    if move and move.stopped and move.stage == "send":
        yield "gateway waits no longer", given_up(world, scope)
    if move is None and world.moves < scope.moves:
        for target in range(scope.workers):
            if target != gateway.owner and world.workers[target].life == "well":
                yield from ((f"move to {target} by {kind}", begun(world, target, kind)) for kind in scope.kinds)


def _strikes(world: World, me: int, worker: Worker, scope: Scope) -> Iterator[Step]:
    if world.gateway.lines[me] and world.former[me] is None:
        yield from ((f"break {me}", after) for after in lose(world, me, scope))
    if _others(world, me):
        down, dead = put(world.down, me, ()), Worker("dead")
        gone = world._replace(workers=put(world.workers, me, dead), down=down, former=put(world.former, me, None))
        yield f"die {me}", gone
        yield f"freeze {me}", gone._replace(workers=put(world.workers, me, Worker("frozen")))
    line = world.gateway.lines[me]
    for command in world.down[me][:1]:
        yield f"twice {command}", obey(world, me, command, line, scope)
    for news in world.up[me][:1]:
        yield f"echo {news}", world._replace(echoes=(*world.echoes, (me, news)))
    if worker.arrival and not _overdue(world, me):
        yield f"lapse {me}", lapsed(world, me)
    if worker.run and worker.run.sending:
        yield f"cut {me}", failed_to_send(world, me)


def _take(world: World, carried: Carried) -> World:
    return arrived(world._replace(carried=tuple(one for one in world.carried if one != carried)), carried)


def _cut(world: World, carried: Carried) -> World:
    """The stream between two workers breaks with what was on it; the source, if it is there, says so."""
    world = world._replace(carried=tuple(one for one in world.carried if one != carried))
    source = next((me for me, one in enumerate(world.workers) if _sent(one.run, carried)), None)
    if source is None:
        return world
    run = world.workers[source].run
    assert run
    return failed_to_send(_with_run(world, source, run._replace(sending=carried.move)), source)


def _sent(run: Run | None, carried: Carried) -> bool:
    return run is not None and run.target == carried.target and run.tokens[: len(carried.tokens)] == carried.tokens


def _with_run(world: World, me: int, run: Run) -> World:
    return world._replace(workers=put(world.workers, me, world.workers[me]._replace(run=run)))


def _heard(world: World, me: int) -> World:
    return world._replace(up=put(world.up, me, world.up[me][1:]))


def _forgotten(world: World, me: int) -> World:
    return world._replace(former=put(world.former, me, None))


def _others(world: World, me: int) -> bool:
    return any(one.life == "well" for worker, one in enumerate(world.workers) if worker != me)


def _overdue(world: World, me: int) -> bool:
    """Whether nothing will come of the room that a target keeps: then its lease alone frees it."""
    arrival, move = world.workers[me].arrival, world.gateway.move
    return bool(
        arrival and not world.down[me] and (move is None or move.number != arrival.move or move.stage == "granted")
    )
