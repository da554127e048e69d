"""A converted model is the model: the same tensors, the same logits, to the bit."""

import mmap
import os
import resource
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from mesh.checkpoint.convert import import_directory
from mesh.checkpoint.errors import ShardMismatch, StorageFailed, UnsupportedModel
from mesh.checkpoint.layout import ALIGNMENT, TENSOR_ALIGNMENT, Manifest, UnitKind, total_bytes
from mesh.checkpoint.progress import ImportPhase, ImportProgress
from mesh.checkpoint.verify import load_manifest, verify_checkpoint
from mesh.checkpoint.views import tensor_views

from .samples import FAMILIES, Spec, edit_config, save

Saved = Callable[[Spec], Path]
MIXTURES = ("mixtral", "qwen3_moe")
PROMPT = torch.arange(3, 43).reshape(2, 20)


def ignore(_progress: ImportProgress) -> None:
    """For imports whose progress is not the point."""


def views_of(root: Path, manifest: Manifest) -> dict[str, torch.Tensor]:
    """Every tensor, as views of the file itself."""
    parts = []
    for part in manifest.parts:
        with (root / manifest.digest / part.file).open("rb") as file:
            mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        parts.append(torch.frombuffer(mapping, dtype=torch.uint8))
    return tensor_views(manifest, parts)


def reference(source: Path) -> PreTrainedModel:
    """What transformers itself makes of the directory."""
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(source, dtype="auto", attn_implementation="eager")
    model.eval()  # type: ignore[no-untyped-call]
    return model


def rebuilt(source: Path, manifest: Manifest, views: dict[str, torch.Tensor]) -> PreTrainedModel:
    """A skeleton without memory, given its buffers by transformers' own initialisation, and our views."""
    config = AutoConfig.from_pretrained(source)
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            config, dtype=getattr(torch, manifest.dtype), attn_implementation="eager"
        )
    for module in model.modules():
        for name in module._non_persistent_buffers_set:
            module._buffers[name] = torch.empty_like(module.get_buffer(name), device="cpu")
        if module._non_persistent_buffers_set:
            model._init_weights(module)  # type: ignore[no-untyped-call]
    model.load_state_dict(views, strict=True, assign=True)
    model.eval()  # type: ignore[no-untyped-call]
    return model


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_tensors_and_logits_are_those_of_from_pretrained(
    saved: Saved, root: Path, family: str, dtype: torch.dtype, tied: bool
) -> None:
    source = saved(Spec(family, dtype, tied, shard="60KB" if dtype is torch.bfloat16 else "50GB"))
    manifest = import_directory(source, root, on_progress=ignore)
    model, views = reference(source), views_of(root, manifest)
    state = model.state_dict()
    assert views.keys() == state.keys()
    for name, tensor in state.items():
        assert views[name].dtype == tensor.dtype, name
        assert torch.equal(views[name], tensor), name
    assert [tie.name for tie in manifest.ties] == (["lm_head.weight"] if tied else [])
    with torch.inference_mode():
        ours, theirs = rebuilt(source, manifest, views)(PROMPT).logits, model(PROMPT).logits
    assert theirs.std() > 0
    assert torch.equal(ours.view(torch.uint8), theirs.view(torch.uint8))
    assert manifest.dtype == str(dtype).removeprefix("torch.")
    assert manifest.max_context == 128
    assert manifest.kv is not None
    assert len(manifest.kv.layers) == 2
    assert verify_checkpoint(root / manifest.digest) == manifest


@pytest.mark.parametrize("family", FAMILIES)
def test_everything_is_aligned_and_in_forward_order(saved: Saved, root: Path, family: str) -> None:
    manifest = import_directory(saved(Spec(family)), root, on_progress=ignore)
    assert all(unit.offset % ALIGNMENT == 0 for unit in manifest.units)
    assert all(part.bytes % ALIGNMENT == 0 for part in manifest.parts)
    assert all(tensor.offset % TENSOR_ALIGNMENT == 0 for tensor in manifest.tensors)
    assert all(first.offset + first.bytes <= second.offset for first, second in pairwise(manifest.units))
    experts = [f".experts.{expert}" for expert in range(4)] if family in MIXTURES else []
    layers = [f"layers.{layer}{unit}" for layer in range(2) for unit in ("", *experts)]
    assert [unit.name for unit in manifest.units] == ["embedding", *layers, "head"]
    where = _units_by_tensor(manifest)
    assert all(
        f"layers.{name.split('.')[3 if family == 'opt' else 2]}" in unit
        for name, unit in where.items()
        if unit not in {"embedding", "head"}
    )


def test_layers_before_the_first_are_loaded_before_it(saved: Saved, root: Path) -> None:
    """OPT registers its final norm and both projections before the layers; only one of them is used before."""
    where = _units_by_tensor(import_directory(saved(Spec("opt")), root, on_progress=ignore))
    outside = {name.removeprefix("model.decoder."): unit for name, unit in where.items() if "layers" not in unit}
    assert outside == {
        "embed_tokens.weight": "embedding",
        "embed_positions.weight": "embedding",
        "project_in.weight": "embedding",
        "project_out.weight": "head",
        "final_layer_norm.weight": "head",
        "final_layer_norm.bias": "head",
        "lm_head.weight": "head",
    }


@pytest.mark.parametrize("family", MIXTURES)
def test_an_expert_is_one_unit_and_fused_tensors_stride_over_them(saved: Saved, root: Path, family: str) -> None:
    source = saved(Spec(family, torch.bfloat16))
    manifest = import_directory(source, root, on_progress=ignore)
    data = (root / manifest.digest / "part-000.bin").read_bytes()
    fused = [tensor for tensor in manifest.tensors if tensor.name.endswith(("gate_up_proj", "down_proj"))]
    assert len(fused) == 4
    for tensor in fused:
        assert tensor.strides[0] * 2 % ALIGNMENT == 0
        assert tensor.strides[1:] == (tensor.shape[2], 1)
    state = reference(source).state_dict()
    for unit in manifest.units:
        if unit.kind is UnitKind.EXPERT:
            prefix = f"model.layers.{unit.layer}.mlp.experts."
            up, down = (state[prefix + name][unit.expert] for name in ("gate_up_proj", "down_proj"))
            raw = data[unit.offset : unit.offset + unit.bytes]
            assert raw.startswith(up.contiguous().view(torch.uint8).numpy().tobytes())
            assert raw.endswith(down.contiguous().view(torch.uint8).numpy().tobytes())


def test_templates_that_lie_deeper_travel_along(llama: Path, root: Path) -> None:
    nested = llama / "additional_chat_templates"
    nested.mkdir()
    for name in ("tool_use.jinja", "rag.jinja", "run.py"):
        (nested / name).write_text(name)
    manifest = import_directory(llama, root, on_progress=ignore)
    held = root / manifest.digest / "files" / nested.name
    assert {path.name: path.read_text() for path in held.iterdir()} == {
        "tool_use.jinja": "tool_use.jinja",
        "rag.jinja": "rag.jinja",
    }
    assert {file.path for file in manifest.files if "/" in file.path} == {
        f"{nested.name}/rag.jinja",
        f"{nested.name}/tool_use.jinja",
    }


def test_the_files_are_copied_and_nothing_else(llama: Path, root: Path) -> None:
    (llama / "modeling_custom.py").write_text("raise SystemExit")
    manifest = import_directory(llama, root, on_progress=ignore)
    home = root / manifest.digest
    assert sorted(str(path.relative_to(home)) for path in home.rglob("*")) == [
        "files",
        "files/LICENSE",
        "files/chat_template.jinja",
        "files/config.json",
        "files/generation_config.json",
        "files/tokenizer.json",
        "manifest.json",
        "part-000.bin",
    ]
    for file in manifest.files:
        assert (home / "files" / file.path).read_bytes() == (llama / file.path).read_bytes()
    assert manifest.config_digest == next(file.hash for file in manifest.files if file.path == "config.json")
    assert (home / "part-000.bin").stat().st_size == total_bytes(manifest)


def test_a_second_import_keeps_the_first(llama: Path, root: Path) -> None:
    first = import_directory(llama, root, on_progress=ignore)
    written = (root / first.digest / "part-000.bin").stat()
    assert import_directory(llama, root, on_progress=ignore) == first
    assert (root / first.digest / "part-000.bin").stat().st_ino == written.st_ino
    assert _names(root) == {first.digest}


def test_a_second_import_repairs_a_damaged_first(llama: Path, root: Path) -> None:
    first = import_directory(llama, root, on_progress=ignore)
    part = root / first.digest / "part-000.bin"
    data = bytearray(part.read_bytes())
    data[5000] ^= 1
    part.write_bytes(data)
    assert import_directory(llama, root, on_progress=ignore) == first
    verify_checkpoint(root / first.digest)
    assert _names(root) == {first.digest}


def test_however_a_model_is_sharded_its_digest_is_the_same(saved: Saved, tmp_path: Path, root: Path) -> None:
    whole = import_directory(saved(Spec("mixtral")), root, on_progress=ignore)
    sharded = save(Spec("mixtral", shard="20KB"), tmp_path / "sharded")
    assert len(list(sharded.glob("*.safetensors"))) > 3
    assert import_directory(sharded, root, on_progress=ignore).digest == whole.digest


def test_another_weight_or_another_config_is_another_digest(llama: Path, root: Path) -> None:
    digests = {import_directory(llama, root, on_progress=ignore).digest}
    shard = min(llama.glob("*.safetensors"))
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    digests.add(import_directory(llama, root, on_progress=ignore).digest)
    edit_config(llama, rope_parameters={"rope_type": "default", "rope_theta": 5000.0})
    digests.add(import_directory(llama, root, on_progress=ignore).digest)
    (llama / "chat_template.jinja").write_text("other")
    digests.add(import_directory(llama, root, on_progress=ignore).digest)
    assert _names(root) == digests
    assert len(digests) == 4


def test_progress_goes_through_the_phases_and_never_back(llama: Path, root: Path) -> None:
    seen: list[ImportProgress] = []
    manifest = import_directory(llama, root, on_progress=seen.append)
    phases = [progress.phase for progress in seen]
    assert list(dict.fromkeys(phases)) == list(ImportPhase)
    writing = [progress for progress in seen if progress.phase is ImportPhase.WRITING]
    assert all(first.bytes_done < second.bytes_done for first, second in pairwise(writing))
    assert {progress.bytes_total for progress in writing} == {total_bytes(manifest)}
    assert 5 <= len(writing) <= 101
    assert seen[-1] == ImportProgress(ImportPhase.PUBLISHING, total_bytes(manifest), total_bytes(manifest))


def test_nothing_stays_of_an_import_that_fails(llama: Path, root: Path) -> None:
    def fall(progress: ImportProgress) -> None:
        if progress.phase is ImportPhase.PUBLISHING:
            assert list(root.glob(".tmp-*/checkpoint/part-000.bin"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        import_directory(llama, root, on_progress=fall)
    assert _names(root) == set()


def test_a_config_without_dtype_means_the_dtype_of_the_weights(saved: Saved, llama: Path, root: Path) -> None:
    source = Path(shutil.copytree(saved(Spec("llama", torch.bfloat16)), llama.parent / "bfloat16"))
    edit_config(source, dtype=None)
    manifest = import_directory(source, root, on_progress=ignore)
    assert manifest.dtype == "bfloat16"
    assert manifest.kv is not None
    assert manifest.kv.dtype == "bfloat16"
    assert all(torch.equal(views_of(root, manifest)[n], t) for n, t in reference(source).state_dict().items())


def test_weights_are_cast_to_the_dtype_of_the_config_as_from_pretrained_does(llama: Path, root: Path) -> None:
    edit_config(llama, dtype="bfloat16")
    manifest = import_directory(llama, root, on_progress=ignore)
    assert manifest.dtype == "bfloat16"
    assert all(torch.equal(views_of(root, manifest)[n], t) for n, t in reference(llama).state_dict().items())


@pytest.mark.parametrize("same", [True, False])
def test_a_head_that_is_stored_although_tied_counts_if_it_differs(
    saved: Saved, tmp_path: Path, root: Path, same: bool
) -> None:
    source = Path(shutil.copytree(saved(Spec("llama", tied=True)), tmp_path / "tied"))
    embedding = load_file(source / "model.safetensors")["model.embed_tokens.weight"]
    _rewrite(source, add={"lm_head.weight": embedding.clone() if same else torch.ones_like(embedding)})
    manifest = import_directory(source, root, on_progress=ignore)
    assert [tie.name for tie in manifest.ties] == (["lm_head.weight"] if same else [])
    model, views = reference(source), views_of(root, manifest)
    with torch.inference_mode():
        assert torch.equal(rebuilt(source, manifest, views)(PROMPT).logits, model(PROMPT).logits)


def test_a_shard_with_an_odd_header_is_read_right(llama: Path, root: Path) -> None:
    """Writers before 2023 did not pad their headers, so no tensor of theirs is aligned."""
    plain = import_directory(llama, root, on_progress=ignore)
    for shard in llama.glob("*.safetensors"):
        data = shard.read_bytes()
        length = int.from_bytes(data[:8], "little")
        shard.write_bytes((length + 1).to_bytes(8, "little") + data[8 : 8 + length] + b" " + data[8 + length :])
    assert import_directory(llama, root, on_progress=ignore).digest == plain.digest


def test_old_causal_masks_in_shards_are_left_out(tmp_path: Path, saved: Saved, root: Path) -> None:
    source = Path(shutil.copytree(saved(Spec("llama")), tmp_path / "old"))
    shard = source / "model.safetensors"
    masks = {
        "model.layers.0.attn.bias": torch.ones(1, 1, 128, 128).tril(),
        "model.layers.0.masked_bias": torch.tensor(-1e4),
    }
    save_file(load_file(shard) | masks, shard, metadata={"format": "pt"})
    plain = import_directory(saved(Spec("llama")), root, on_progress=ignore)
    assert import_directory(source, root, on_progress=ignore).digest == plain.digest


def test_a_tensor_too_few_is_a_mismatch(llama: Path, root: Path) -> None:
    _rewrite(llama, drop="model.layers.1.mlp.up_proj.weight")
    with pytest.raises(ShardMismatch, match=r"lack model\.layers\.1\.mlp\.up_proj\.weight"):
        import_directory(llama, root, on_progress=ignore)


def test_a_tensor_too_many_is_a_mismatch(llama: Path, root: Path) -> None:
    _rewrite(llama, add={"model.layers.1.mlp.side_proj.weight": torch.ones(4, 4)})
    with pytest.raises(ShardMismatch, match=r"unknown to it, model\.layers\.1\.mlp\.side_proj\.weight"):
        import_directory(llama, root, on_progress=ignore)


def test_a_lone_number_too_many_is_a_mismatch_too(llama: Path, root: Path) -> None:
    """It may be the scale of quantized weights."""
    _rewrite(llama, add={"model.layers.1.mlp.up_proj.scale": torch.tensor(0.5)})
    with pytest.raises(ShardMismatch, match=r"up_proj\.scale"):
        import_directory(llama, root, on_progress=ignore)


def test_a_tensor_of_another_shape_is_a_mismatch(llama: Path, root: Path) -> None:
    _rewrite(llama, add={"model.norm.weight": torch.ones(63)})
    with pytest.raises(ShardMismatch, match=r"another shape model\.norm\.weight"):
        import_directory(llama, root, on_progress=ignore)


@pytest.mark.parametrize("changes", [{"num_hidden_layers": 10**9}, {"hidden_size": 2**20}, {"vocab_size": 2**40}])
def test_a_config_that_promises_the_moon_is_refused_before_memory_is_taken(
    llama: Path, root: Path, changes: dict[str, object]
) -> None:
    edit_config(llama, **changes)
    with pytest.raises(ShardMismatch, match="promises"):
        import_directory(llama, root, on_progress=ignore)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"model_type": "llama99"}, "unknown to transformers"),
        ({"model_type": "vit"}, "does not generate text"),
        (
            {"architectures": ["LlamaForSequenceClassification"]},
            "LlamaForSequenceClassification, which does not generate",
        ),
        ({"num_attention_heads": 0}, "refused by transformers|builds no model"),
        ({"num_attention_heads": "four"}, "refused by transformers|builds no model"),
        ({"hidden_act": "unheard"}, "builds no model"),
    ],
)
def test_a_config_of_no_model_we_can_serve_is_refused(
    llama: Path, root: Path, changes: dict[str, object], problem: str
) -> None:
    edit_config(llama, **changes)
    with pytest.raises(UnsupportedModel, match=problem):
        import_directory(llama, root, on_progress=ignore)
    assert not root.exists()


def _plant(directory: Path, **changes: object) -> Path:
    """Code beside the checkpoint that leaves a mark when it runs."""
    mark = directory.parent / "mark"
    (directory / "custom.py").write_text(f"open({str(mark)!r}, 'w')\nclass Config: pass\nclass Model: pass\n")
    edit_config(directory, auto_map={"AutoConfig": "custom.Config", "AutoModelForCausalLM": "custom.Model"}, **changes)
    return mark


@pytest.mark.parametrize("changes", [{"model_type": "custom"}, {"architectures": ["CustomForCausalLM"]}])
def test_a_model_that_needs_remote_code_is_refused(llama: Path, root: Path, changes: dict[str, object]) -> None:
    mark = _plant(llama, **changes)
    with pytest.raises(UnsupportedModel, match="needs code from the checkpoint"):
        import_directory(llama, root, on_progress=ignore)
    assert not mark.exists()


def test_remote_code_that_nobody_needs_is_neither_run_nor_copied(llama: Path, root: Path) -> None:
    mark = _plant(llama)
    manifest = import_directory(llama, root, on_progress=ignore)
    assert manifest.architecture == "LlamaForCausalLM"
    assert not mark.exists()
    assert not list((root / manifest.digest).rglob("*.py"))


def test_a_full_disk_is_told_before_writing(llama: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(llama)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=1000))
    with pytest.raises(StorageFailed, match="has 1000 bytes free"):
        import_directory(llama, root, on_progress=ignore)
    assert not root.exists()


def test_a_write_that_fails_is_told_and_leaves_nothing(llama: Path, root: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(StorageFailed, match="File too large"):
            import_directory(llama, root, on_progress=ignore)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert _names(root) == set()


def test_all_is_on_the_disk_before_it_has_its_name(llama: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    fsync = os.fsync

    def watch(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    manifest = import_directory(llama, root, on_progress=ignore)
    stage = synced[-2]
    assert stage.parent.name.startswith(".tmp-")
    assert synced[-1] == root
    written = {str(path.relative_to(root / manifest.digest)) for path in (root / manifest.digest).rglob("*")}
    assert {str(path.relative_to(stage)) for path in synced[:-2]} == written


def test_a_root_that_is_a_file_is_told(llama: Path, root: Path) -> None:
    root.write_text("")
    with pytest.raises(StorageFailed, match="cannot"):
        import_directory(llama, root, on_progress=ignore)


def test_what_is_returned_is_what_is_stored(llama: Path, root: Path) -> None:
    manifest = import_directory(llama, root, on_progress=ignore)
    assert load_manifest(root / manifest.digest) == manifest
    assert (manifest.source, manifest.transformers) == (str(llama), transformers.__version__)
    assert (manifest.architecture, manifest.model_type) == ("LlamaForCausalLM", "llama")


def _units_by_tensor(manifest: Manifest) -> dict[str, str]:
    """The unit that each tensor starts in."""
    return {
        tensor.name: next(u.name for u in manifest.units if u.offset <= tensor.offset < u.offset + u.bytes)
        for tensor in manifest.tensors
    }


def _names(root: Path) -> set[str]:
    """What a reader of the root sees, its lock aside."""
    return {path.name for path in root.iterdir()} - {".lock"}


def _rewrite(directory: Path, drop: str | None = None, add: dict[str, torch.Tensor] | None = None) -> None:
    """One shard in place of all, with a tensor less or more."""
    tensors: dict[str, torch.Tensor] = {}
    for shard in directory.glob("*.safetensors"):
        tensors |= load_file(shard)
        shard.unlink()
    if drop is not None:
        del tensors[drop]
    save_file(tensors | (add or {}), directory / "model.safetensors", metadata={"format": "pt"})
