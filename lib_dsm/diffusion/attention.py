"""PyTorch's own attention over several heads, in the type it is given or in float32."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, heads: int) -> torch.Tensor:
    """What `query` B×N×C sees in `key` and `value` B×M×C with so many heads, B×N×C."""
    q, k, v = (_split(part, heads) for part in (query, key, value))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def attend_in_float32(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, heads: int) -> torch.Tensor:
    """The same in float32, given in the query's own type: SD2.1's products of queries and keys overflow in half."""
    q, k, v = (_split(part, heads).float() for part in (query, key, value))
    # Autocasting would take the attention back to half precision.
    with torch.autocast(query.device.type, enabled=False):
        attended = F.scaled_dot_product_attention(q, k, v)
    return attended.transpose(1, 2).flatten(2).to(query.dtype)


def _split(part: torch.Tensor, heads: int) -> torch.Tensor:
    batch, length, width = part.shape
    return part.reshape(batch, length, heads, width // heads).transpose(1, 2)
