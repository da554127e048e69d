"""What the model's gateway makes of news, and of lines that break. The product's own Journal says what continues the
answer."""

import asyncio
from collections.abc import Iterator
from functools import cache

from mesh.requests import FinishReason, Frame, Sampling
from services.gateway.journal import Journal, Question
from tests.protocol.ownership import commanded, committed, ended, given_up, granted, released
from tests.protocol.world import NOBODY, Said, Scope, Sent, Tokens, Told, World, put

KEY = "request"
QUESTION = Question("", (0,), Sampling(9, 0.0, 0, 1.0, 0.0, 1.0, 0.0, 0.0, 0, ()))


class Violation(AssertionError):
    """An answer that is not whole, or has two owners."""


@cache
def accepted(epoch: int, log: Tokens, frame: Frame) -> tuple[Tokens, bool] | None:
    """The log with the frame, and whether the answer ends with it; None if it does not count."""
    journal = Journal(KEY, "", QUESTION, asyncio.Event())
    journal.epoch, journal.tokens = epoch, list(log)
    return (tuple(journal.tokens), journal.finish is not None) if journal.accept(frame) else None


def hear(world: World, news: Said | Told, scope: Scope) -> World:
    """What the gateway makes of a worker's word."""
    if world.gateway.ended:
        return world
    return _frame(world, news, scope) if isinstance(news, Said) else _told(world, news, scope)


def _frame(world: World, said: Said, scope: Scope) -> World:
    gateway = world.gateway
    epoch = said.epoch if scope.rules.fence else gateway.epoch
    finish = FinishReason.LENGTH if said.last else None
    took = accepted(gateway.epoch, gateway.log, Frame(KEY, epoch, said.seq, said.tokens[said.seq :], finish))
    if took is None:
        return world
    log, last = took
    if log != said.tokens:
        raise Violation(f"{log} was read, and {said.tokens} was written")
    world = world._replace(gateway=gateway._replace(log=log))
    if last:
        return ended(world, scope)
    return released(world, scope) if gateway.move and gateway.move.stage == "granted" else world


def _told(world: World, told: Told, scope: Scope) -> World:
    gateway, move = world.gateway, world.gateway.move
    if move is None or told.move != move.number or move.stage == "granted":
        return world
    if told.name == "failed":
        return given_up(world, scope)
    if told.name == "reserved":
        if move.stage == "send":
            return world
        world = world._replace(gateway=gateway._replace(move=move._replace(stage="send")))
        send = Sent(move.number, gateway.epoch, move.kind, move.target)
        return world if move.kind == "tokens" else commanded(world, move.source, send)
    if told.name == "ready":
        return committed(world)
    return world._replace(gateway=gateway._replace(move=move._replace(stopped=True)))


def lose(world: World, lost: int, scope: Scope) -> Iterator[World]:
    """The gateway's line to a worker has broken. Where the request has lost its owner, anybody may be granted it."""
    world = _without_line(world, lost)
    gateway, move = world.gateway, world.gateway.move
    if gateway.ended:
        yield world
    elif move and lost == gateway.owner and move.stage == "granted":
        world = world._replace(gateway=gateway._replace(move=None))
        yield from _anybody(world, move.source)
    elif lost == gateway.owner:
        yield from _orphaned(world, scope)
    elif move and lost == move.source:
        yield world._replace(gateway=gateway._replace(move=move._replace(source=NOBODY)))
    elif move and lost == move.target:
        yield given_up(world, scope)
    else:
        yield world


def died(world: World) -> World:
    """The gateway is gone, and with it the answer: its client may ask another, with what it has."""
    for worker, line in enumerate(world.gateway.lines):
        world = _without_line(world, worker) if line else world
    return world._replace(gateway=world.gateway._replace(ended=True, move=None))


def _without_line(world: World, lost: int) -> World:
    gateway, former = world.gateway, world.former
    if world.workers[lost].life == "well":
        former = put(former, lost, (gateway.lines[lost], world.down[lost]))
    return world._replace(
        gateway=gateway._replace(lines=put(gateway.lines, lost, 0)),
        down=put(world.down, lost, ()),
        up=put(world.up, lost, ()),
        former=former,
    )


def _orphaned(world: World, scope: Scope) -> Iterator[World]:
    """The owner is lost, its move not committed. A target that has room is granted what has come."""
    move = world.gateway.move
    if move and move.stage == "send":
        source_gone = move._replace(source=NOBODY)
        yield committed(world._replace(gateway=world.gateway._replace(move=source_gone)))
    elif move:
        source_gone = move._replace(source=NOBODY)
        world = given_up(world._replace(gateway=world.gateway._replace(move=source_gone)), scope)
        yield from _anybody(world, NOBODY)
    else:
        yield from _anybody(world, NOBODY)


def _anybody(world: World, first: int) -> Iterator[World]:
    """Whoever holds it still, else each that is there."""
    if first != NOBODY and world.gateway.lines[first]:
        yield granted(world, first)
        return
    for worker, one in enumerate(world.workers):
        if one.life == "well":
            yield granted(world, worker)
