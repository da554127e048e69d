"""Names alone: layers found, experts apart, embeddings first, the head last, whatever strangers call their tensors."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.checkpoint import layout
from mesh.checkpoint.grouping import Place, group, place_of_name
from mesh.checkpoint.layout import DTYPES, Part, Unit, UnitKind
from mesh.checkpoint.plan import lay_out
from mesh.checkpoint.shards import ShardTensor

from .samples import manifest, sealed

EMBEDDING, LAYER, EXPERT, HEAD = UnitKind.EMBEDDING, UnitKind.LAYER, UnitKind.EXPERT, UnitKind.HEAD


def tensor(name: str, size: int = 64) -> ShardTensor:
    """One of bytes."""
    return ShardTensor(name, "uint8", (size,), 0, size)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("model.layers.0.self_attn.q_proj.qweight", Place(LAYER, 0)),
        ("model.layers.11.mlp.down_proj.weight_scale_inv", Place(LAYER, 11)),
        ("model.layers.3.mlp.experts.200.gate_proj.weight", Place(EXPERT, 3, 200)),
        ("model.layers.3.block_sparse_moe.experts.7.w1.scales", Place(EXPERT, 3, 7)),
        ("model.layers.3.mlp.experts.gate_up_proj_blocks", Place(LAYER, 3)),
        ("model.layers.3.mlp.shared_experts.0.weight", Place(LAYER, 3)),
        ("model.layers.3.mlp.gate.weight", Place(LAYER, 3)),
        ("model.layers.norm.weight", Place(HEAD)),
        ("model.layers", Place(HEAD)),
        ("model.layers.٣.weight", Place(HEAD)),
        ("model.layers.-1.weight", Place(HEAD)),
        ("model.layers." + "9" * 30 + ".weight", Place(HEAD)),
        ("model.embed_tokens.weight", Place(EMBEDDING)),
        ("model.rotary_emb.inv_freq", Place(EMBEDDING)),
        ("transformer.wte.weight", Place(EMBEDDING)),
        ("tok_embeddings.weight", Place(EMBEDDING)),
        ("model.norm.weight", Place(HEAD)),
        ("lm_head.weight", Place(HEAD)),
        ("embed_out.weight", Place(HEAD)),
        ("remember.weight", Place(HEAD)),
        ("vision_tower.blocks.4.weight", Place(HEAD)),
    ],
)
def test_a_name_points_at_a_place(name: str, place: Place) -> None:
    assert place_of_name(name, ("model", "layers")) == place


def test_the_layers_are_the_list_that_holds_the_most() -> None:
    tensors = [tensor(f"vision.blocks.{index}.weight", 10) for index in range(40)]
    tensors += [tensor(f"model.layers.{index}.weight", 1000) for index in range(3)]
    placed = {placement.name: placement for placement in group(tensors)}
    assert [placed[f"model.layers.{index}.weight"].layer for index in range(3)] == [0, 1, 2]
    assert {placement.kind for name, placement in placed.items() if name.startswith("vision")} == {HEAD}


def test_without_a_list_there_are_no_layers() -> None:
    assert {placement.kind for placement in group([tensor("wte.weight"), tensor("out.weight")])} == {EMBEDDING, HEAD}
    assert group([]) == ()


def test_a_list_at_the_root_counts() -> None:
    assert [placement.layer for placement in group([tensor("0.weight"), tensor("10.weight"), tensor("2.weight")])] == [
        0,
        10,
        2,
    ]


def test_units_lie_in_forward_order_each_expert_by_itself() -> None:
    names = [
        "lm_head.weight",
        *(
            f"model.layers.{layer}.mlp.experts.{expert}.{part}"
            for layer in (10, 2)
            for expert in (11, 3)
            for part in "ab"
        ),
        *(f"model.layers.{layer}.norm" for layer in (10, 2)),
        "model.embed_tokens.weight",
    ]
    plan = lay_out(group(map(tensor, names)))
    assert [unit.name for unit in plan.units] == [
        "embedding",
        *(f"layers.{layer}{unit}" for layer in (2, 10) for unit in ("", ".experts.3", ".experts.11")),
        "head",
    ]
    assert [piece.tensor for piece in plan.units[2].pieces] == [f"model.layers.2.mlp.experts.3.{part}" for part in "ab"]
    assert (plan.units[2].layer, plan.units[2].expert, plan.units[2].kind) == (2, 3, EXPERT)


def test_the_order_of_the_tensors_does_not_matter() -> None:
    tensors = [tensor(f"model.layers.{layer}.{name}") for layer in range(3) for name in ("b", "a")]
    assert group(tensors) == group(tensors[::-1])


STEPS = st.sampled_from(
    ["model", "layers", "experts", "shared_experts", "0", "1", "007", "9999999999", "embed", "", "ü"]
)
TENSORS = st.builds(
    lambda steps, dtype, shape: ShardTensor(".".join(steps), dtype, tuple(shape), 0, 0),
    st.lists(STEPS, min_size=1, max_size=7),
    st.sampled_from(sorted(DTYPES)),
    st.lists(st.integers(0, 5), max_size=3),
)


@settings(deadline=None)
@given(st.lists(TENSORS, max_size=20, unique_by=lambda tensor: tensor.name))
def test_any_names_give_a_valid_manifest(tensors: list[ShardTensor]) -> None:
    tensors = [tensor for tensor in tensors if tensor.name]
    plan = lay_out(group(tensors))
    units = tuple(Unit(u.name, u.kind, 0, u.offset, u.bytes, "0" * 64, u.layer, u.expert) for u in plan.units)
    parts = (Part("part-000.bin", 0, plan.bytes),)
    layout.validate(sealed(replace(manifest(), parts=parts, units=units, tensors=plan.tensors, ties=())))
    assert {t.name: (t.dtype, t.shape) for t in plan.tensors} == {t.name: (t.dtype, t.shape) for t in tensors}
