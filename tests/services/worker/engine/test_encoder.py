import pytest
import torch
import transformers
from torch import Tensor
from transformers import AutoConfig, PreTrainedModel

from mesh.requests import Pooling
from services.worker.engine.embed_queue import batches
from services.worker.engine.encoder import EncoderReplica, build_encoder
from services.worker.engine.errors import NotGenerative
from services.worker.engine.model import assign
from tests.services.worker.engine.tiny import request

SMALL = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "vocab_size": 99,
    "max_position_embeddings": 64,
}  # fmt: skip
TWO_KV_HEADS = {"num_key_value_heads": 2, "head_dim": 8}
ENCODERS = [
    ("bert", "BertModel", {}),
    ("bert", "BertForMaskedLM", {}),
    ("roberta", "RobertaModel", {}),
    ("mpnet", "MPNetModel", {}),
    ("distilbert", "DistilBertModel", {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64}),
    ("modernbert", "ModernBertModel", {"pad_token_id": 0, "cls_token_id": 1, "sep_token_id": 2}),
    ("nomic_bert", "NomicBertModel", {}),
    ("deberta-v2", "DebertaV2Model", {}),
    ("albert", "AlbertModel", {"embedding_size": 32}),
    ("qwen3", "Qwen3Model", TWO_KV_HEADS),
]
TEXTS = ((5, 6, 7, 8, 9), (1, 2), (11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 1, 3), (3,))


def made(model_type: str, name: str, settings: dict[str, object]) -> tuple[PreTrainedModel, EncoderReplica]:
    """One that transformers has made, and a replica of its weights."""
    torch.manual_seed(0)
    ends = {"bos_token_id": 1, "eos_token_id": 2} if model_type == "modernbert" else {}
    config = AutoConfig.for_model(model_type, **{**SMALL, **settings, **ends})
    reference = getattr(transformers, name)(config).eval()
    state = reference.state_dict()
    body = build_encoder(config, name, tuple(state), torch.float32, "cpu")
    assign(body, state)
    return reference, EncoderReplica(name, body, 64)


@torch.inference_mode()
def alone(reference: PreTrainedModel, tokens: tuple[int, ...], pooling: Pooling) -> Tensor:
    hidden = reference.base_model(input_ids=torch.tensor([tokens]))[0][0]
    return {Pooling.MEAN: hidden.mean(0), Pooling.LAST: hidden[-1], Pooling.CLS: hidden[0]}[pooling]


@pytest.mark.parametrize(("model_type", "name", "settings"), ENCODERS)
def test_vectors_of_a_batch_are_those_of_each_text_alone(
    model_type: str, name: str, settings: dict[str, object]
) -> None:
    reference, replica = made(model_type, name, settings)
    for pooling in Pooling:
        with torch.inference_mode():
            found = replica.embed(name, TEXTS, pooling)
        expected = torch.stack([alone(reference, text, pooling) for text in TEXTS])
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-5)


def test_an_encoder_generates_nothing_and_says_what_to_do() -> None:
    _, replica = made("bert", "BertModel", {})
    with pytest.raises(NotGenerative, match="call Embed"):
        replica.check(request("r", (1, 2)))


def test_batches_are_of_like_lengths_and_bounded() -> None:
    inputs = [[0] * length for length in (3, 10, 4, 1, 30, 2)]
    found = list(batches(inputs, 12))
    assert found == [[4], [1], [2, 0, 5], [3]]
    assert all(len(one) == 1 or len(one) * len(inputs[one[0]]) <= 12 for one in found)
