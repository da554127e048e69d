"""How likely a token was by the model's own logits: before penalties, bias, temperature and every cut."""

from torch import Tensor

from mesh.requests import TokenLogprob, TopLogprob


def logprob(row: Tensor, token: int, top: int) -> TokenLogprob:
    """Of `token` and of the `top` likeliest in its place, by their logits [vocabulary].

    A row at a time: torch adds several up in another order than one, and the bits must not tell how many there were.
    """
    row = row.float()
    scale = row.logsumexp(-1)
    own = float(row[token] - scale)
    if not top:
        return TokenLogprob(own)
    best = row.topk(min(top, len(row)))
    values = (best.values - scale).tolist()
    return TokenLogprob(own, tuple(map(TopLogprob, best.indices.tolist(), values)))
