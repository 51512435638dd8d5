"""Attention in float32 for a U-Net in half precision: SD2.1's products of queries and keys overflow there."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def attend_in_float32(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, heads: int) -> torch.Tensor:
    """What `query` B×N×C sees in `key` and `value` B×M×C with so many heads, B×N×C in the query's own type."""
    batch, _, width = query.shape
    q, k, v = (part.reshape(batch, -1, heads, width // heads).transpose(1, 2).float() for part in (query, key, value))
    # Autocasting would take the attention back to half precision.
    with torch.autocast(query.device.type, enabled=False):
        attended = F.scaled_dot_product_attention(q, k, v)
    return attended.transpose(1, 2).reshape(batch, -1, width).to(query.dtype)
