"""The lean gate is the plain one to the bit, and keeps less."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.activations import GEGLU

from lib_dsm.diffusion.gate import gated

WIDTH = 24


def passed(forward, module, dtype):
    """Output, gradient of the input, and bytes kept for the backward pass beside the weights."""
    generator = torch.Generator().manual_seed(0)
    hidden = (3 * torch.randn(2, 10, WIDTH, generator=generator)).to(dtype).requires_grad_()
    weights = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = forward(module, hidden)
    (gradient,) = torch.autograd.grad(output, hidden, torch.randn(output.shape, generator=generator).to(dtype))
    return output, gradient, sum(size for place, size in kept.items() if place not in weights)


def plain(module, hidden):
    x, gate = module.proj(hidden).chunk(2, dim=-1)
    return x * F.gelu(gate)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_the_gate_is_the_plain_one_to_the_bit_and_keeps_the_projection_alone(dtype):
    torch.manual_seed(1)
    module = GEGLU(WIDTH, 4 * WIDTH).to(dtype).requires_grad_(False)
    expected, ours = passed(plain, module, dtype), passed(gated, module, dtype)
    assert torch.equal(ours[0], expected[0])
    assert torch.equal(ours[1], expected[1])
    projection = 2 * 10 * 8 * WIDTH * dtype.itemsize
    assert ours[2] == projection < expected[2]


def test_the_model_uses_it(micro):
    gates = [module for module in micro.unet.modules() if isinstance(module, GEGLU)]
    assert gates and all(module.forward.func is gated for module in gates)
    hidden = torch.randn(1, 5, gates[0].proj.in_features)
    assert torch.equal(gates[0](hidden), GEGLU.forward(gates[0], hidden))
