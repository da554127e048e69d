"""A model's body without its weights: built on the meta device, pointed at tensors that lie elsewhere, emptied
again; and which models the packed runner serves. Reading weights is the loader's work."""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from mesh.checkpoint.runners import why_config_is_not_packed, why_not_packed
from services.worker.engine import attention
from services.worker.engine.errors import UnsupportedArchitecture, WeightsMismatch
from services.worker.engine.pool import KVSpec, LayerKV

HARMLESS = frozenset({"position_ids", "position_embeddings", "cache_position"})


def build(config: PreTrainedConfig, dtype: torch.dtype, device: torch.device | str = "cpu") -> PreTrainedModel:
    """A causal language model whose parameters are on meta and whose non-persistent buffers (rotary tables,
    embedding scales) are real, on `device`. `config` is not changed. UnsupportedArchitecture says why not."""
    if why := why_config_is_not_packed(config):
        raise UnsupportedArchitecture(why)
    attention.register()
    module = _causal(config, dtype, device, attn_implementation=attention.ATTENTION)
    prepare(module)
    return module


def construct(
    make: Callable[..., PreTrainedModel],
    config: PreTrainedConfig,
    dtype: torch.dtype,
    device: torch.device | str,
    **options: Any,
) -> PreTrainedModel:
    """A module of `make` with its parameters on meta and its non-persistent buffers real. `config` is not changed."""
    with torch.device("meta"), _Unfilled():
        module = make(copy.deepcopy(config), dtype=dtype, **options)
    _fill_buffers(module, device)
    return module


def build_opaque(config: PreTrainedConfig, dtype: torch.dtype, device: torch.device | str = "cpu") -> PreTrainedModel:
    """As build(), but on the attention that transformers itself chooses: for the opaque runner."""
    if getattr(config, "is_encoder_decoder", False):
        raise UnsupportedArchitecture(f"{config.model_type} is an encoder-decoder")
    module = _causal(config, dtype, device)
    module.train(False)
    return module


def is_packed(module: PreTrainedModel) -> bool:
    """Whether it was built for the packed runner."""
    return bool(module.config._attn_implementation == attention.ATTENTION)


def _causal(
    config: PreTrainedConfig, dtype: torch.dtype, device: torch.device | str, **options: Any
) -> PreTrainedModel:
    try:
        return construct(AutoModelForCausalLM.from_config, config, dtype, device, **options)
    except (KeyError, ValueError) as error:  # transformers' way to say: no such class, no such attention
        where = "on paged attention" if options else "by transformers"
        raise UnsupportedArchitecture(f"{config.model_type} cannot be built {where}: {error}") from error


class _Unfilled(TorchFunctionMode):
    """Leaves out what fills a new module's tensors at random: on meta it writes nothing, yet takes half of the time."""

    FILLS = frozenset({nn.init.kaiming_uniform_, nn.init.normal_, nn.init.uniform_})

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in self.FILLS:
            tensor: Tensor = args[0] if args else kwargs["tensor"]
            if tensor.is_meta:
                return tensor
        return func(*args, **kwargs)


def prepare(module: PreTrainedModel) -> None:
    """Make any transformers model callable by the packed runner: paged attention, inference, no padding."""
    attention.register()
    if why := why_not_packed(module):
        raise UnsupportedArchitecture(why)
    module.set_attn_implementation(attention.ATTENTION)
    module.config.pad_token_id = None  # nothing is padded; some models look for pads in every batch to warn
    module.train(False)


def assign(module: PreTrainedModel, views: Mapping[str, Tensor]) -> None:
    """Point parameters and persistent buffers at `views`, named as in state_dict(), without copying. Of tensors
    that the model ties, one is enough. WeightsMismatch if a name is missing or unknown, or a shape differs."""
    homes = dict(module.named_modules())
    for name, view in views.items():
        path, _, leaf = name.rpartition(".")
        _place(homes, path, leaf, view)
    for target, source in module.all_tied_weights_keys.items():
        given, other = (source, target) if source in views else (target, source)
        if given in views and other not in views:
            _place(homes, *_split(other), homes[_split(given)[0]].get_parameter(_split(given)[1]))
    left = [name for name, tensor in _state(module) if tensor.is_meta]
    if left:
        raise WeightsMismatch(f"{len(left)} tensors are missing, among them {', '.join(left[:4])}")


def release(module: PreTrainedModel) -> None:
    """Forget the weights: every parameter and persistent buffer back to meta. The body can be assigned again."""
    for home in module.modules():
        for leaf, parameter in home._parameters.items():
            if parameter is not None:
                home._parameters[leaf] = _frozen(torch.empty_like(parameter, device="meta"))
        for leaf, buffer in home._buffers.items():
            if buffer is not None and leaf not in home._non_persistent_buffers_set:
                home._buffers[leaf] = torch.empty_like(buffer, device="meta")


def _split(name: str) -> tuple[str, str]:
    path, _, leaf = name.rpartition(".")
    return path, leaf


def _place(homes: Mapping[str, nn.Module], path: str, leaf: str, view: Tensor) -> None:
    home = homes.get(path)
    place: dict[str, Any] = {} if home is None else home._parameters if leaf in home._parameters else home._buffers
    old = place.get(leaf)
    if old is None:
        raise WeightsMismatch(f"the model has no tensor {path}.{leaf}")
    if old.shape != view.shape:
        raise WeightsMismatch(f"{path}.{leaf} is {tuple(view.shape)}, the model expects {tuple(old.shape)}")
    place[leaf] = _frozen(view) if isinstance(old, nn.Parameter) else view


def _frozen(tensor: Tensor) -> nn.Parameter:
    """As a parameter over the same memory; a tied one stays the very same object."""
    return tensor if isinstance(tensor, nn.Parameter) else nn.Parameter(tensor, requires_grad=False)


def _state(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


def _fill_buffers(module: PreTrainedModel, device: torch.device | str) -> None:
    """Compute non-persistent buffers for real, by transformers' own initialisers, while all weights are on meta."""
    homes = dict(module.named_modules())
    for path, home in homes.items():
        leaves = [n for n in home._non_persistent_buffers_set if (b := home._buffers[n]) is not None and b.is_meta]
        left = _unfilled(home, leaves, _initialisers(homes, path), device)
        if left:
            raise UnsupportedArchitecture(f"{path}.{left[0]} is a buffer that transformers does not rebuild")
        stray = [name for name, value in vars(home).items() if isinstance(value, Tensor) and value.is_meta]
        if stray:
            raise UnsupportedArchitecture(f"{path}.{stray[0]} is a tensor outside the state dict")


def _unfilled(
    home: nn.Module, leaves: list[str], initialisers: Iterator[Callable[[], None]], device: torch.device | str
) -> list[str]:
    """Each initialiser is run over two backgrounds: what it leaves untouched differs, and is left to the next one;
    what none fills would be garbage at run time."""
    shapes = {leaf: home.get_buffer(leaf) for leaf in leaves}
    while leaves and (initialise := next(initialisers, None)):
        filled = []
        for background in (0, 1):
            for leaf in leaves:
                home._buffers[leaf] = torch.full_like(shapes[leaf], background, device=device)
            initialise()
            filled.append([home.get_buffer(leaf) for leaf in leaves])
        leaves = [leaf for leaf, *both in zip(leaves, *filled, strict=True) if not torch.equal(*both)]
    return leaves


def _initialisers(homes: Mapping[str, nn.Module], path: str) -> Iterator[Callable[[], None]]:
    """For the module at `path`, then each around it, what the model that it is part of initialises it by."""
    parts = path.split(".") if path else []
    around = [homes[".".join(parts[:count])] for count in range(len(parts), -1, -1)]
    for i, home in enumerate(around):
        owner = next(one for one in around[i:] if isinstance(one, PreTrainedModel))
        yield partial(owner._init_weights, home)


class Probe:
    """Stands behind the attention function for one token, and notes what each layer hands it."""

    def __init__(self, config: PreTrainedConfig) -> None:
        self._config = config
        self.layers: dict[int, LayerKV] = {}

    def attend(self, call: attention.Call) -> Tensor:
        index = getattr(call.layer, "layer_idx", None)
        if not isinstance(index, int) or index in self.layers:
            raise UnsupportedArchitecture(f"attention layer {index!r} does not say which layer it is")
        if not getattr(call.layer, "is_causal", True):
            raise UnsupportedArchitecture(f"attention layer {index} is not causal")
        if _has_window(self._config, index) and call.score.window is None:
            raise UnsupportedArchitecture(f"attention layer {index} has a window that only its mask tells")
        extra = [n for n, v in call.unused.items() if isinstance(v, Tensor) and n not in HARMLESS]
        if extra:
            raise UnsupportedArchitecture(f"attention layer {index} also depends on {', '.join(extra)}")
        key, value, query = call.key, call.value, call.query
        if key.shape[1] != value.shape[1] or query.shape[1] % key.shape[1]:
            raise UnsupportedArchitecture(f"attention layer {index} has heads that do not divide evenly")
        self.layers[index] = LayerKV(key.shape[1], key.shape[3], value.shape[3])
        return query.new_zeros(1, query.shape[2], query.shape[1], value.shape[3])


def _has_window(config: PreTrainedConfig, layer: int) -> bool:
    kinds = getattr(config, "layer_types", None)
    if kinds:
        return bool(kinds[layer] == "sliding_attention")
    return bool(getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True))


def probe_kv(module: PreTrainedModel, block_tokens: int = 16) -> KVSpec:
    """KV geometry by one token sent through a prepared model on meta: nothing is computed, no weight is read."""
    text = module.config.get_text_config(decoder=True)
    probe = Probe(text)
    token = torch.zeros(1, 1, dtype=torch.long, device="meta")
    inputs = {"input_ids": token, "position_ids": token, "use_cache": False}
    tensors = {name: tensor.to("meta") for name, tensor in _state(module)}
    try:
        with _attending_on_meta(module, probe):
            functional_call(module, tensors, kwargs=inputs)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:  # from the model's own code
        raise UnsupportedArchitecture(f"{text.model_type}: sending one token through it fails: {error}") from error
    if sorted(probe.layers) != list(range(text.num_hidden_layers)):
        raise UnsupportedArchitecture(
            f"{text.model_type}: {len(probe.layers)} of {text.num_hidden_layers} layers use the attention interface"
        )
    return KVSpec(tuple(probe.layers[i] for i in range(len(probe.layers))), module.dtype, block_tokens)


@contextmanager
def _attending_on_meta(module: PreTrainedModel, probe: Probe) -> Iterator[None]:
    """Experts are called as batched products meanwhile: the other ways count tokens, which meta cannot."""
    experts = module.get_experts_implementation()
    module.set_experts_implementation("batched_mm")
    try:
        with torch.inference_mode(), attention.attending(probe):
            yield
    finally:
        module.set_experts_implementation(experts)
