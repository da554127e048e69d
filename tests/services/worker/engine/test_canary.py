"""The proof of a level and the fingerprint, on real models; and a model that gives its level the lie."""

import pytest
import torch

from mesh.facts import NumericsLevel
from services.worker.engine.errors import NumericsNotHeld, PoolTooSmall
from services.worker.engine.fingerprint import fingerprint
from services.worker.engine.model import probe_kv
from services.worker.engine.numerics import FAST, LEVELS, Numerics
from services.worker.engine.packed_replica import PackedReplica
from tests.services.worker.engine.leaky import make_leaky
from tests.services.worker.engine.tiny import BLOCK_TOKENS, body, greedy, prompt, request, run, tokens_of

BATCH, PATH = LEVELS[NumericsLevel.BATCH_INVARIANT], LEVELS[NumericsLevel.PATH_INVARIANT]


def replica(family: str, numerics: Numerics, *, blocks: int = 32, digest: str = "d") -> PackedReplica:
    module = body(family)
    spec = probe_kv(module, BLOCK_TOKENS)
    return PackedReplica(family, digest, module, blocks * spec.block_bytes, spec=spec, numerics=numerics)


def proven(one: PackedReplica) -> str:
    with torch.inference_mode():
        one.prove()
    return one.stats().fingerprint


@pytest.mark.parametrize("numerics", [BATCH, PATH], ids=lambda numerics: numerics.level)
@pytest.mark.parametrize("family", ["llama", "qwen3_moe"])
def test_a_proven_replica_has_a_fingerprint_all_its_blocks_and_the_tokens_of_generate(
    family: str, numerics: Numerics
) -> None:
    one = replica(family, numerics)
    assert len(proven(one)) == 32
    assert one.stats().numerics is numerics.level
    assert one.stats().free_blocks == one.stats().total_blocks
    assert tokens_of(run(one, [request("r", prompt(40), on=family)])) == {"r": greedy(family, prompt(40), 24)}


def test_fingerprints_are_equal_for_equal_replicas_and_differ_with_level_weights_and_threads() -> None:
    first = proven(replica("llama", BATCH))
    assert proven(replica("llama", BATCH)) == first
    others = {proven(replica("llama", PATH)), proven(replica("llama", BATCH, digest="e"))}
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        others.add(proven(replica("llama", BATCH)))
    finally:
        torch.set_num_threads(threads)
    assert len(others | {first}) == 4


def test_the_canarys_bits_are_part_of_the_fingerprint() -> None:
    cpu = torch.device("cpu")
    assert fingerprint(cpu, b"a") == fingerprint(cpu, b"a")
    assert fingerprint(cpu, b"a") != fingerprint(cpu, b"b")


def test_fast_proves_nothing_and_has_no_fingerprint() -> None:
    assert not proven(replica("llama", FAST))


@pytest.mark.parametrize("numerics", [BATCH, PATH], ids=lambda numerics: numerics.level)
def test_a_model_whose_rows_depend_on_each_other_is_found_out_and_leaves_no_block_behind(numerics: Numerics) -> None:
    one = replica("llama", numerics)
    make_leaky(one)
    with pytest.raises(NumericsNotHeld, match="deploy it with numerics fast"):
        proven(one)
    assert one.stats().free_blocks == one.stats().total_blocks


def test_a_pool_that_is_too_small_for_the_proof_says_so() -> None:
    with pytest.raises(PoolTooSmall, match="more KV memory"):
        proven(replica("llama", PATH, blocks=2))


def test_kv_addresses_of_another_kind_of_device_are_others() -> None:
    one = replica("llama", BATCH)
    before = one.prefix_root
    proven(one)
    assert one.prefix_root != before
