"""What the model's gateway does about who owns the request: grants, moves, and their ends."""

from tests.protocol.world import (
    NO_MOVE,
    NOBODY,
    Abandoned,
    Cancelled,
    Command,
    Expected,
    Granted,
    Move,
    Scope,
    World,
    put,
)


def commanded(world: World, worker: int, *commands: Command) -> World:
    """With commands on the worker's line, if there is one: a worker that is gone reads none."""
    if not world.gateway.lines[worker] or world.workers[worker].life != "well":
        return world
    return world._replace(down=put(world.down, worker, world.down[worker] + commands))


def granted(world: World, worker: int, move: int = NO_MOVE, *, again: bool = False) -> World:
    """Another epoch, owned by `worker`; on a new line where it has none. `again` keeps the epoch: that is a mistake."""
    world = _with_line(world, worker)
    gateway = world.gateway._replace(epoch=world.gateway.epoch + (not again), owner=worker)
    return commanded(world._replace(gateway=gateway), worker, Granted(gateway.epoch, gateway.log, move))


def begun(world: World, target: int, kind: str) -> World:
    """A move of the request to `target` begins."""
    number, world = world.moves + 1, _with_line(world, target)
    move = Move(number, kind, world.gateway.owner, target)
    world = world._replace(gateway=world.gateway._replace(move=move), moves=number)
    return commanded(world, target, Expected(number, kind, world.gateway.log))


def given_up(world: World, scope: Scope) -> World:
    """The move is over before its target was granted. A source that may stand still is granted again."""
    move = world.gateway.move
    assert move
    assert move.stage != "granted"
    may_stand = move.stopped or (scope.rules.again and move.stage == "send" and move.kind != "tokens")
    world = world._replace(gateway=world.gateway._replace(move=None))
    world = commanded(world, move.target, Abandoned(move.number))
    if move.source == NOBODY:
        return world
    world = commanded(world, move.source, Abandoned(move.number))
    return granted(world, move.source, again=not scope.rules.new_epoch) if may_stand else world


def committed(world: World) -> World:
    """The target of the move owns the request."""
    move = world.gateway.move
    assert move
    world = world._replace(gateway=world.gateway._replace(move=move._replace(stage="granted")))
    return granted(world, move.target, move.number)


def ended(world: World, scope: Scope) -> World:
    """The answer is over: whoever has to do with it is told."""
    gateway, move = world.gateway, world.gateway.move
    if move and move.stage != "granted":
        world = commanded(world, move.target, Abandoned(move.number))
        if move.source != NOBODY:
            world = commanded(world, move.source, Abandoned(move.number))
    elif move:
        world = released(world, scope)
    world = commanded(world, gateway.owner, Cancelled(gateway.epoch))
    return world._replace(gateway=world.gateway._replace(ended=True, move=None))


def released(world: World, scope: Scope) -> World:
    """The target's first frame has counted: its source may forget the request."""
    move, gateway = world.gateway.move, world.gateway
    assert move
    world = world._replace(gateway=gateway._replace(move=None))
    if move.source == NOBODY or not scope.rules.release:
        return world
    return commanded(world, move.source, Cancelled(gateway.epoch - 1))


def _with_line(world: World, worker: int) -> World:
    if world.gateway.lines[worker]:
        return world
    opened = world.lines_opened + 1
    lines = put(world.gateway.lines, worker, opened)
    return world._replace(gateway=world.gateway._replace(lines=lines), lines_opened=opened)
