"""The vectors of an input's tokens become one: its embedding, in float32."""

import torch

from moe_serve.encoders.recipe import EmbeddingRecipe, Pooling


def embed(h_BLD: torch.Tensor, lengths_B: torch.Tensor, recipe: EmbeddingRecipe) -> torch.Tensor:
    """Embeddings, float32 [B, D].

    Args:
        h_BLD: of B inputs, each padded to L tokens at its end.
        lengths_B: int64, at least 1.
    """
    pooled_BD = pool(h_BLD.float(), lengths_B, recipe.pooling)
    return torch.nn.functional.normalize(pooled_BD) if recipe.normalizes else pooled_BD


def pool(h_BLD: torch.Tensor, lengths_B: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """One vector of each input, [B, D], of its real tokens alone."""
    if pooling == "cls":
        return h_BLD[:, 0]
    if pooling == "lasttoken":
        return h_BLD[torch.arange(len(h_BLD), device=h_BLD.device), lengths_B - 1]
    mask_BL = token_mask(lengths_B, h_BLD.shape[1])
    if pooling == "max":
        return h_BLD.masked_fill(~mask_BL.unsqueeze(-1), -torch.inf).amax(1)
    sums_BD = torch.bmm(mask_BL.unsqueeze(1).to(h_BLD.dtype), h_BLD).squeeze(1)
    return sums_BD / lengths_B.unsqueeze(-1)


def token_mask(lengths_B: torch.Tensor, longest: int) -> torch.Tensor:
    """Bool [B, L]: which places hold tokens."""
    return torch.arange(longest, device=lengths_B.device) < lengths_B.unsqueeze(-1)
