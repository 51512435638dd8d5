"""A hypernetwork on the demo world's U-Net, against an implementation that knows nothing of ours."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.attention_processor import Attention

from lib_dsm.errors import ModelError
from lib_dsm.networks.hypernetwork import Hypernetwork, facts_of, save_pt
from lib_dsm.networks.hypernetwork_modules import Pairs, initialise
from lib_dsm.networks.hypernetwork_structure import Structure
from lib_dsm.networks.hypernetwork_training import HypernetworkTraining, drawn_start, start_from


class PlainProcessor:
    """Attention with a hypernetwork, straight from its definition: K = W_k(c + m·f_k(c)), V = W_v(c + m·f_v(c))."""

    def __init__(self, layers, strength):
        self.layers = layers
        self.strength = strength

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, **_):
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        of_k, of_v = self.layers.get(context.shape[-1], (None, None))
        seen_k = context if of_k is None else context + self.strength * of_k(context)
        seen_v = context if of_v is None else context + self.strength * of_v(context)
        q, k, v = attn.to_q(hidden_states), attn.to_k(seen_k), attn.to_v(seen_v)
        batch, tokens, width = q.shape
        q, k, v = (part.reshape(batch, -1, attn.heads, width // attn.heads).transpose(1, 2) for part in (q, k, v))
        weights = (q @ k.transpose(-1, -2) / (width // attn.heads) ** 0.5).softmax(-1)
        return attn.to_out[0]((weights @ v).transpose(1, 2).reshape(batch, tokens, width))


def plain_halves(weights, structure):
    """The halves by width as plain torch modules."""
    activation = {"linear": None, "relu": torch.nn.ReLU, "swish": torch.nn.Hardswish}[structure.activation]
    found = {}
    for width, pair in weights.items():
        halves = []
        for tensors in pair:
            parts, sizes = [], [int(width * times) for times in structure.layers]
            for place in range(len(sizes) - 1):
                parts.append(torch.nn.Linear(sizes[place], sizes[place + 1]))
                if activation and place < len(sizes) - 2:
                    parts.append(activation())
                if structure.layer_norm:
                    parts.append(torch.nn.LayerNorm(sizes[place + 1]))
            half = torch.nn.Sequential(*parts)
            half.load_state_dict({name.removeprefix("linear."): tensor for name, tensor in tensors.items()})
            halves.append(half)
        found[width] = tuple(halves)
    return found


def network(model, **changes) -> HypernetworkTraining:
    """One that acts on all of the model's layers, strongly enough to be seen."""
    structure = Structure(tuple(model.context_widths()), **changes)
    start = drawn_start(structure, "XavierNormal", 0.01, 1)
    return HypernetworkTraining("style", structure, start.weights, model.device)


@pytest.fixture(scope="module")
def inputs(micro):
    generator = torch.Generator().manual_seed(0)
    noisy = torch.randn(2, 4, 8, 12, generator=generator)
    with torch.no_grad():
        conditioning = micro.encode_prompts(["solo, red hair", "smile"], {}, 1)
    return noisy, torch.tensor([100, 700]), conditioning


def test_the_micro_model_has_layers_of_every_kind(micro):
    widths = micro.context_widths()
    layers = [module for module in micro.unet.modules() if isinstance(module, Attention)]
    assert sum(widths.values()) == len(layers)
    assert next(iter(widths)) == micro.hidden_size and widths[micro.hidden_size] == len(layers) // 2


@pytest.mark.parametrize("activation", ["linear", "relu", "swish"])
@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_it_acts_as_a_plain_implementation_does(micro, inputs, activation, layer_norm, strength):
    trained = network(micro, activation=activation, layer_norm=layer_norm)
    with torch.no_grad():
        before = micro.predict(*inputs)
        with trained.applied(micro, strength) as replacements:
            found = micro.predict(*inputs)
        after = micro.predict(*inputs)
        own = dict(micro.unet.attn_processors)
        micro.unet.set_attn_processor(PlainProcessor(plain_halves(trained.weights(), trained.structure), strength))
        try:
            expected = micro.predict(*inputs)
        finally:
            micro.unet.set_attn_processor(own)
    assert replacements == {}
    assert torch.allclose(found, expected, atol=1e-4) and float((found - expected).abs().max()) < 1e-4
    assert float((found - before).abs().max()) > 1e-2
    assert torch.equal(before, after)


def test_nothing_is_left_on_the_model(micro, inputs):
    modules = {name: dict(vars(module)) for name, module in micro.unet.named_modules()}
    with pytest.raises(KeyboardInterrupt), network(micro).applied(micro):
        raise KeyboardInterrupt
    for name, module in micro.unet.named_modules():
        assert vars(module).keys() == modules[name].keys(), name
        assert not module._forward_pre_hooks and not module._forward_hooks, name


@pytest.mark.parametrize("dropout", [(), (0, 0.4, 0)])
@pytest.mark.parametrize("recompute", [False, True])
def test_the_prompts_context_is_changed_once_where_all_layers_get_the_same(micro, inputs, dropout, recompute):
    width = micro.hidden_size
    structure = Structure((width,), dropout=dropout)
    start = drawn_start(structure, "XavierNormal", 0.01, 0)
    trained = HypernetworkTraining("a", structure, start.weights, micro.device)
    seen: list[int] = []
    handle = trained._pairs.halves[width][0].register_forward_hook(
        lambda module, given, output: seen.append(given[0].shape[-1])
    )
    try:
        micro.recompute = recompute
        for place in (0, 1):
            with trained.applied(micro), trained.training(0, (place, 5)):
                loss = micro.predict(*inputs).square().mean()
                torch.autograd.grad(loss, trained.parameters())
    finally:
        micro.recompute = False
        handle.remove()
    layers = micro.context_widths()[width] * (1 + recompute) if dropout else 1
    assert seen == [width] * 2 * layers  # and the layers of other widths are left alone


def test_each_pass_has_its_own_context(micro, inputs):
    """Passes within one context do not see each other's prompts, nor weights that have moved since."""
    trained = network(micro)
    noisy, moments, conditioning = inputs
    with torch.no_grad(), trained.applied(micro):
        first = micro.predict(noisy, moments, conditioning)
        other = micro.predict(noisy, moments, conditioning.flip(0))
        trained.parameters()[0].mul_(1.5)
        moved = micro.predict(noisy, moments, conditioning)
        trained.parameters()[0].div_(1.5)
        again = micro.predict(noisy, moments, conditioning)
    assert torch.allclose(first, again, atol=1e-5)
    assert not torch.allclose(first, other, atol=1e-3) and not torch.allclose(first, moved, atol=1e-4)


@pytest.mark.parametrize("dropout", [(), (0, 0.4, 0)])
def test_gradients_are_the_same_when_activations_are_computed_again(micro, inputs, dropout):
    trained = network(micro, activation="relu", dropout=dropout)
    found = []
    try:
        for micro.recompute in (False, True):
            with trained.applied(micro), trained.training(5, (8, 9)):
                loss = micro.predict(*inputs).square().mean()
                found.append((loss.detach(), torch.autograd.grad(loss, trained.parameters())))
    finally:
        micro.recompute = False
    assert torch.equal(found[0][0], found[1][0])
    assert all(torch.equal(*pair) for pair in zip(found[0][1], found[1][1], strict=True))
    assert sum(float(gradient.abs().sum()) > 0 for gradient in found[0][1]) == len(found[0][1])


def test_strength_is_one_in_training(micro, inputs):
    trained = network(micro)
    with torch.no_grad():
        with trained.applied(micro, 1.0):
            whole = micro.predict(*inputs)
        with trained.applied(micro, 0.3), trained.training(0, (0, 1)):
            assert torch.equal(micro.predict(*inputs), whole)


def test_state_goes_round_and_another_structure_is_refused(micro):
    one, other = network(micro), network(micro, layers=(1, 1.5, 1))
    with torch.no_grad():
        one.parameters()[0].add_(1.0)
    again = network(micro)
    again.load_state(one.state())
    assert all(torch.equal(*pair) for pair in zip(one.parameters(), again.parameters(), strict=True))
    with pytest.raises(ModelError, match="another structure"):
        other.load_state(one.state())


def test_it_starts_from_a_file_and_goes_on_after_its_step(tmp_path):
    structure = Structure((16,), activation="swish")
    pairs = Pairs.empty(structure)
    initialise(pairs, "Normal", 0.5, 3)
    save_pt(Hypernetwork(pairs.tensors(), facts_of(structure, "style", 70, "Normal")), tmp_path / "style.pt")
    begun = start_from(tmp_path / "style.pt", go_on=False)
    assert (begun.structure, begun.step, begun.moments) == (structure, 0, ())
    assert torch.equal(begun.weights[16][1]["linear.0.weight"], pairs.tensors()[16][1]["linear.0.weight"])
    on = start_from(tmp_path / "style.pt", go_on=True)
    assert on.step == 70 and "after step 70" in on.note and "optimizer begins anew" in on.note and not on.stale
    torch.save({"optimizer_state_dict": {}, "hash": "0123456789"}, tmp_path / "style.pt.optim")
    stale = start_from(tmp_path / "style.pt", go_on=True)
    assert "belongs to another file" in stale.stale and not stale.moments
