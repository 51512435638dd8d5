"""Attention over several heads is softmax(QKᵀ/√d)V of each, written out."""

from __future__ import annotations

import pytest
import torch

from lib_dsm.diffusion.attention import attend, attend_in_float32


@pytest.mark.parametrize("way", [attend, attend_in_float32])
def test_each_head_sees_its_own_part(way):
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(2, 5, 12, generator=generator)
    key, value = torch.randn(2, 2, 7, 12, generator=generator)
    heads = []
    for part in range(3):
        q, k, v = (tensor[..., 4 * part : 4 * part + 4] for tensor in (query, key, value))
        heads.append((q @ k.transpose(1, 2) / 2).softmax(-1) @ v)
    assert torch.allclose(way(query, key, value, 3), torch.cat(heads, dim=-1), atol=1e-6)


def test_products_that_overflow_in_half_precision_do_not_in_float32():
    large = torch.full((1, 4, 64), 100.0, dtype=torch.float16)  # 64 products of 10⁴
    seen = attend_in_float32(large, large, large, 1)
    assert seen.dtype == torch.float16 and torch.equal(seen, large)
