"""The request that load is made of."""

import struct
from pathlib import Path

from whimbrel.gateway.v1.gateway_pb2 import GenerateRequest

from benchmarks.serving.load import FINISHED, SUCCEEDED, Load, write_body

LOAD = Load("127.0.0.1:1", "dispatched", at_once=48)


def test_h2load_sends_the_request_in_grpcs_frame(tmp_path: Path) -> None:
    body = write_body(LOAD, tmp_path / "body").read_bytes()
    compressed, length = struct.unpack(">BI", body[:5])
    assert (compressed, length) == (0, len(body) - 5)
    assert GenerateRequest.FromString(body[5:]) == LOAD.request()


def test_h2loads_own_words_are_understood() -> None:
    said = (
        "finished in 1.23s, 812.30 req/s, 120.5KB/s\n"
        "requests: 1000 total, 1000 started, 1000 done, 998 succeeded, 2 failed, 1 errored, 0 timeout\n"
    )
    rate, counts = FINISHED.search(said), SUCCEEDED.search(said)
    assert rate
    assert float(rate[1]) == 812.3
    assert counts
    assert counts.groups() == ("998", "2", "1")
