"""One end of a plain TCP copy: python -m benchmarks.loading.tcp send, or receive PORT

It obeys "hold BYTES" (memory of that size, touched) and "copy", which answers the seconds that it took.
"""

import socket
import sys
import time

from benchmarks.answers import answers_only
from benchmarks.loading.reading import pool

PIECE_BYTES = 4 << 20


def send(line: socket.socket, memory: memoryview) -> None:
    """All of it."""
    line.sendall(memory)


def receive(line: socket.socket, memory: memoryview) -> None:
    """As many bytes as there is memory for."""
    done = 0
    while done < len(memory):
        done += line.recv_into(memory[done:], min(PIECE_BYTES, len(memory) - done))


def main(side: str, port: str = "") -> None:
    """Until standard input ends."""
    answers, copy = answers_only(), send if side == "send" else receive
    if side == "send":
        with socket.create_server(("127.0.0.1", 0)) as server:
            answers.write(f"{server.getsockname()[1]}\n")
            line, _ = server.accept()
    else:
        line = socket.create_connection(("127.0.0.1", int(port)))
        answers.write("ready\n")
    memory = memoryview(b"")
    for order in sys.stdin:
        command, _, rest = order.strip().partition(" ")
        if command == "hold":
            memory = memoryview(pool(int(rest)))
            answers.write("done\n")
        else:
            began_s = time.perf_counter()
            copy(line, memory)
            answers.write(f"{time.perf_counter() - began_s}\n")
    line.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
