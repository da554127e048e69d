"""A TCP connection beside a Receive stream, for blocks alone: what they take of a process is the system's copying, and
no Python. Its ends block, each in a thread of its owner's; they raise OSErrors."""

import hmac
import socket
import struct
from contextlib import ExitStack, suppress
from dataclasses import dataclass

HEAD = struct.Struct("<IIQ")
TOKEN_BYTES = 16


@dataclass(frozen=True, slots=True)
class Offer:
    """Where a target listens for the source of one stream, which says `token` first."""

    port: int
    token: bytes


@dataclass(frozen=True, slots=True)
class PieceHead:
    """What stands before `blocks` whole blocks: layer by layer, keys before values; `checksum` is their xxh3-64."""

    first_block: int
    blocks: int
    checksum: int


class Pipe:
    """One end. `close` may be called while another thread waits in it, and ends that."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, head: PieceHead, data: memoryview) -> None:
        """A piece."""
        self._connection.sendall(HEAD.pack(head.first_block, head.blocks, head.checksum))
        self._connection.sendall(data)

    def head(self) -> PieceHead | None:
        """Of the next piece; None when the other end has closed."""
        data = bytearray(HEAD.size)
        try:
            self.fill(memoryview(data))
        except EOFError:
            return None
        return PieceHead(*HEAD.unpack(data))

    def fill(self, memory: memoryview) -> None:
        """With what comes next; EOFError if that is less."""
        while memory:
            count = self._connection.recv_into(memory)
            if not count:
                raise EOFError("a pipe has ended")
            memory = memory[count:]

    def knows(self, token: bytes, timeout_s: float) -> bool:
        """Whether the other end, which has connected, says `token` within this time; otherwise it is closed."""
        said = bytearray(len(token))
        self._connection.settimeout(timeout_s)
        with suppress(OSError, EOFError):
            self.fill(memoryview(said))
        known = hmac.compare_digest(said, token)
        if known:
            self._connection.settimeout(None)
        else:
            self.close()
        return known

    def close(self) -> None:
        """Both directions."""
        with suppress(OSError):  # the other end was quicker
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()


def connect(address: str, offer: Offer, timeout_s: float, patience_s: float) -> Pipe:
    """To the host of `address`, another's gRPC server. What is sent later must be taken within `patience_s` a piece."""
    host = address.rpartition(":")[0].strip("[]")
    with ExitStack() as failing:
        connection = failing.enter_context(socket.create_connection((host, offer.port), timeout_s))
        connection.settimeout(patience_s)
        connection.sendall(offer.token)
        failing.pop_all()
    return Pipe(connection)
