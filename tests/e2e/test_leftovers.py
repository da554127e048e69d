"""A cluster that ends, or whose launcher is killed, leaves no process, whatever it was doing."""

import asyncio
import sys
from pathlib import Path

from tests.cli.gone import below, until_gone
from tests.e2e.library import BIG, Library

LAUNCHER = """
import asyncio, sys
from contextlib import aclosing
from pathlib import Path
from cli.cluster import ClusterOptions, LocalCluster
from tests.e2e.asking import answering, deploy
from tests.e2e.conftest import SETTINGS

async def main(data_dir, digest, source):
    options = ClusterOptions(Path(data_dir), workers=1, settings=SETTINGS)
    async with LocalCluster(options) as cluster, cluster.client() as client:
        await deploy(client, "busy", checkpoint=digest)
        async with answering(client, "busy"), aclosing(client.import_checkpoint(source)) as importing:
            await anext(importing)
            print("busy", flush=True)
            await asyncio.Event().wait()

asyncio.run(main(*sys.argv[1:]))
"""


async def test_no_process_is_left_when_a_launcher_is_killed_in_the_middle_of_its_work(
    library: Library, tmp_path: Path
) -> None:
    library.put(tmp_path / "store", [BIG])
    source = library.edition(BIG, tmp_path / "source")
    launcher = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", LAUNCHER, tmp_path, library.digest(BIG), source), stdout=asyncio.subprocess.PIPE
    )
    assert launcher.stdout
    assert await launcher.stdout.readline() == b"busy\n"
    started = below(launcher.pid)
    assert len(started) == len(("valkey", "scheduler", "store", "gateway", "worker", "import"))
    launcher.kill()
    await launcher.communicate()
    await asyncio.gather(*(until_gone(pid, within_s=20) for pid in started))
