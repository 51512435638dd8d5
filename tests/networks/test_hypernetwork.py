import itertools
import math
from collections import OrderedDict

import pytest
import torch

from lib_dsm.errors import InputError, ModelError
from lib_dsm.networks.hypernetwork import (
    Hypernetwork,
    facts_of,
    load_hypernetwork,
    save_pt,
    save_safetensors,
)
from lib_dsm.networks.hypernetwork_modules import Drawing, Pairs, initialise
from lib_dsm.networks.hypernetwork_structure import (
    ACTIVATIONS,
    Structure,
    old_dropout,
    parameter_count,
    parts,
)
from lib_dsm.networks.inspect import describe, describe_text

# The WebUI's names that mean another class of torch's than the one that is called so.
WEBUIS_OWN = {"linear": torch.nn.Identity, "swish": torch.nn.Hardswish}


def torch_class(name: str):
    if name in WEBUIS_OWN:
        return WEBUIS_OWN[name]
    module = torch.nn.modules.activation
    return next(getattr(module, key) for key in module.__all__ if key.lower() == name)


def reference(width: int, structure: Structure) -> torch.nn.Sequential:
    """A half as the WebUI's source builds it, written anew from the description of the format."""
    made = []
    sizes = [int(width * times) for times in structure.layers]
    for place, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        made.append(torch.nn.Linear(inputs, outputs))
        last = place == len(sizes) - 2
        if structure.activation != "linear" and (structure.activate_output or not last):
            made.append(torch_class(structure.activation)())
        if structure.layer_norm:
            made.append(torch.nn.LayerNorm(outputs))
        if structure.dropout and structure.dropout[place + 1] > 0:
            made.append(torch.nn.Dropout(structure.dropout[place + 1]))
    return torch.nn.Sequential(*made).eval()


def drawn(structure: Structure, how: str = "XavierNormal", seed: int = 0, deviation: float = 0.01) -> Pairs:
    pairs = Pairs.empty(structure)
    initialise(pairs, how, deviation, seed)
    return pairs


def with_noise(pairs: Pairs) -> Pairs:
    """Every number another one, biases and norms too."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in pairs.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return pairs


def made(structure: Structure, **changes) -> Hypernetwork:
    return Hypernetwork(
        with_noise(drawn(structure)).tensors(), {**facts_of(structure, "style", 500, "Normal"), **changes}
    )


STRUCTURES = (
    Structure((24,)),
    Structure((24, 8), (1, 2, 2, 1), "swish", dropout=(0, 0.1, 0.2, 0)),
    Structure((24, 8), (1, 1.5, 1), "relu", layer_norm=True, activate_output=True),
    Structure((8,), (1, 2, 1), "prelu"),
    Structure((8,), (1, 1)),
)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_the_tensors_are_called_as_in_the_webui_and_do_the_same(structure):
    pairs = with_noise(drawn(structure))
    context = torch.randn(2, 5, 24, generator=torch.Generator().manual_seed(2))
    for width, halves in pairs.tensors().items():
        for module, tensors in zip(pairs.halves[width], halves, strict=True):
            plain = reference(width, structure)
            plain.load_state_dict({name.removeprefix("linear."): tensor for name, tensor in tensors.items()})
            for strength in (1.0, 0.5, 0.0):
                seen = context[..., :width]
                assert torch.equal(module(seen, strength), seen + plain(seen) * strength)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_is_the_webuis(name):
    structure = Structure((16,), (1, 2, 1), name)
    module, plain = with_noise(drawn(structure)).halves[16][0], reference(16, structure)
    plain.load_state_dict({key.removeprefix("linear."): value for key, value in module.state_dict().items()})
    context = 3 * torch.randn(2, 4, 16, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(module(context), context + plain(context), atol=1e-6)
    assert module(context).shape == context.shape


def test_a_skip_connection_adds_the_stretched_input():
    structure = Structure((8,), (1, 2, 1), "relu", skip=True, layer_norm=True)
    module = with_noise(drawn(structure)).halves[8][1]
    tensors = module.state_dict()
    x = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))

    def layer(values, place, size):
        linear = torch.nn.functional.linear(
            values, tensors[f"linear.{place}.linear.0.weight"], tensors[f"linear.{place}.linear.0.bias"]
        )
        normed = torch.nn.functional.layer_norm(
            linear, (size,), tensors[f"linear.{place}.linear.1.weight"], tensors[f"linear.{place}.linear.1.bias"]
        )
        stretched = values.repeat_interleave(2, dim=-1) if size == 16 else values[..., 1::2]
        return stretched + normed.relu()

    whole = layer(layer(x, 0, 16), 1, 8)
    assert torch.allclose(module(x), whole, atol=1e-6)
    assert torch.allclose(module(x, 0.25), x + 0.25 * (whole - x), atol=1e-6)
    matrix = Structure((8,), (1, 2, 1), skip=True, upsampling="Linear")
    assert drawn(matrix).halves[8][0].state_dict()["linear.0.upsample_layer.weight"].shape == (16, 8)


@pytest.mark.parametrize(
    "structure",
    [*STRUCTURES, Structure((8, 24), (1, 3, 2, 1), "tanh", True, True, (0, 0.1, 0, 0), skip=True, upsampling="Linear")],
)
def test_the_parts_count_every_number(structure):
    pairs = drawn(structure)
    for width, pair in pairs.halves.items():
        assert parameter_count(structure, width) == sum(p.numel() for half in pair for p in half.parameters())
        kinds = [part["kind"] for part in parts(structure, width)]
        modules = [module for module in pair[0].modules() if not list(module.children())]
        assert len(kinds) - kinds.count("stretch") == len(modules) - sum(
            isinstance(module, torch.nn.Linear) and module.bias is None for module in modules
        )


@pytest.mark.parametrize("structure", STRUCTURES)
def test_a_file_is_read_back_bit_for_bit(structure, tmp_path):
    written = made(structure, optional_info="for tests", from_somewhere_else=[1, 2.5, "x"])
    for save, name in ((save_pt, "style.pt"), (save_safetensors, "style.safetensors")):
        save(written, tmp_path / name)
        found = load_hypernetwork(tmp_path / name)
        assert list(found.weights) == list(written.weights)
        assert dict(found.facts) == dict(written.facts) and list(found.facts) == list(written.facts)
        assert found.structure == structure and (found.name, found.step) == ("style", 500)
        for width, pair in written.weights.items():
            for half, again in zip(pair, found.weights[width], strict=True):
                assert list(half) == list(again)
                assert all(torch.equal(half[key], again[key]) for key in half)
        save(found, tmp_path / f"again-{name}")
        assert (tmp_path / f"again-{name}").read_bytes() == (tmp_path / name).read_bytes()


def test_the_file_is_what_torch_reads_in_the_webuis_layout(tmp_path):
    save_pt(made(Structure((24, 8), layer_norm=True)), tmp_path / "style.pt")
    content = torch.load(tmp_path / "style.pt", weights_only=True)
    assert [key for key in content if isinstance(key, int)] == [24, 8]
    assert type(content[24]) is tuple and type(content[24][0]) is OrderedDict
    assert list(content[24][0]) == [f"linear.{n}.{kind}" for n in range(4) for kind in ("weight", "bias")]
    assert [key for key in content if isinstance(key, str)] == [
        "step", "name", "layer_structure", "activation_func", "is_layer_norm", "weight_initialization",
        "sd_checkpoint", "sd_checkpoint_name", "activate_output", "use_dropout", "dropout_structure",
        "last_layer_dropout", "optional_info",
    ]  # fmt: skip
    assert content["layer_structure"] == [1, 2, 1] and content["dropout_structure"] == [0, 0, 0]


def test_old_files_are_read_as_the_webui_reads_them(tmp_path):
    """The first ones had two layers under other names and said nothing of their structure."""
    half = {"linear1.weight": torch.ones(16, 8), "linear1.bias": torch.zeros(16)}
    half |= {"linear2.weight": torch.ones(8, 16), "linear2.bias": torch.zeros(8)}
    torch.save({8: (half, half), "step": 3}, tmp_path / "old.pt")
    found = load_hypernetwork(tmp_path / "old.pt")
    assert found.structure == Structure((8,), (1, 2, 1), "linear", activate_output=True)
    context = torch.ones(1, 1, 8)
    assert torch.equal(found.pairs().halves[8][0](context), context + 8 * 16)
    assert old_dropout((1, 2, 2, 1), True, True) == (0, 0.3, 0.3, 0)
    assert old_dropout((1, 2, 2, 1), True, False) == (0, 0.3, 0, 0)
    assert old_dropout((1, 2, 1), True, False) == (0, 0, 0) and old_dropout((1, 2, 1), False, True) == ()


def test_what_is_no_hypernetwork_is_named(tmp_path):
    torch.save({"string_to_param": {}}, tmp_path / "embedding.pt")
    with pytest.raises(ModelError, match="not a hypernetwork"):
        load_hypernetwork(tmp_path / "embedding.pt")
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(ModelError, match="not a hypernetwork but"):
        load_hypernetwork(tmp_path / "text.pt")
    with pytest.raises(InputError, match=r"nothing\.pt"):
        load_hypernetwork(tmp_path / "nothing.pt")
    wrong = made(Structure((8,)), layer_structure=[1, 3, 1])
    with pytest.raises(ModelError, match=r"8\.k\.linear\.0\.bias is \(16,\) and should be \(24,\)"):
        wrong.pairs()


def test_a_broken_network_is_not_written(tmp_path):
    broken = made(Structure((8,)))
    broken.weights[8][1]["linear.0.bias"][3] = math.nan
    with pytest.raises(ModelError, match=r"8\.v\.linear\.0\.bias"):
        save_pt(broken, tmp_path / "broken.pt")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"layers": (1, 2)}, "layer structure is 1, 2"),
        ({"layers": (1,)}, "layer structure is 1"),
        ({"layers": (1, 100, 1)}, "layer structure is 1, 100, 1"),
        ({"layers": (1, 0.01, 1)}, "without a number"),
        ({"activation": "threshold"}, '"threshold" is not known'),
        ({"dropout": (0, 0.5)}, "dropout structure has 2 numbers, the layer structure 3"),
        ({"dropout": (0, 1, 0)}, "dropout structure is 0, 1, 0"),
        ({"widths": ()}, "none"),
        ({"widths": (8, 8)}, "8, 8"),
    ],
)
def test_what_cannot_be_built_is_refused(changes, sentence):
    with pytest.raises(InputError, match=sentence):
        Structure(**{"widths": (8,), **changes})


@pytest.mark.parametrize(
    ("how", "deviation"),
    [
        ("Normal", 0.05), ("XavierNormal", math.sqrt(2 / (64 + 128))), ("XavierUniform", math.sqrt(2 / (64 + 128))),
        ("KaimingNormal", math.sqrt(2 / 64)), ("KaimingUniform", math.sqrt(2 / 64)),
    ],
)  # fmt: skip
def test_first_numbers_have_the_deviation_that_they_should(how, deviation):
    pairs = drawn(Structure((64,), layer_norm=True), how, seed=3, deviation=0.05)
    weight, bias = (pairs.halves[64][0].state_dict()[f"linear.0.{kind}"] for kind in ("weight", "bias"))
    assert float(weight.std()) == pytest.approx(deviation, rel=0.03) and abs(float(weight.mean())) < deviation / 20
    assert not bias.any()
    if how.endswith("Uniform"):
        assert float(weight.abs().max()) == pytest.approx(math.sqrt(3) * deviation, rel=0.01)
    norm = pairs.halves[64][0].state_dict()["linear.1.weight"]
    assert 0.02 < float(norm.std()) < 0.08 and abs(float(norm.mean())) < 0.02  # the WebUI's, whatever is chosen


def test_first_numbers_depend_on_the_seed_alone_and_disturb_nothing():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, again, other = (drawn(Structure((8, 16)), "Normal", seed) for seed in (1, 1, 2))
    alone = drawn(Structure((16,)), "Normal", 1)
    assert torch.equal(torch.get_rng_state(), before)
    weights = [pairs.halves[16][0].state_dict()["linear.0.weight"] for pairs in (one, again, alone, other)]
    assert torch.equal(weights[0], weights[1]) and torch.equal(weights[0], weights[2])
    assert not torch.equal(weights[0], weights[3])
    keys, values = (half.state_dict()["linear.0.weight"] for half in one.halves[16])
    assert not torch.equal(keys, values)


@pytest.mark.parametrize("structure", [
    Structure((16,), (1, 4, 1), "relu", dropout=(0, 0.25, 0)),
    Structure((16,), (1, 4, 1), "rrelu"),
    Structure((16,), (1, 4, 1), "relu", dropout=(0, 0.25, 0), skip=True),
])  # fmt: skip
def test_what_is_drawn_belongs_to_picture_and_layer(structure):
    half = with_noise(drawn(structure)).halves[16][0]
    x = torch.randn(1, 6, 16, generator=torch.Generator().manual_seed(0)).expand(2, -1, -1)
    both = half(x, drawing=Drawing(7, (3, 4)), layer=2)
    assert torch.equal(both[1:], half(x[1:], drawing=Drawing(7, (4,)), layer=2))
    assert not torch.equal(both[0], both[1])
    assert torch.equal(both, half(x, drawing=Drawing(7, (3, 4)), layer=2))
    for other in (Drawing(8, (3, 4)), Drawing(7, (5, 6))):
        assert not torch.equal(both, half(x, drawing=other, layer=2))
    assert not torch.equal(both, half(x, drawing=Drawing(7, (3, 4)), layer=1))
    assert torch.equal(half(x)[0], half(x)[1])


def test_dropout_leaves_out_its_share_and_keeps_the_mean():
    half = Pairs.empty(Structure((200,), (1, 1), dropout=(0, 0.3))).halves[200][0]
    with torch.no_grad():
        half.linear[0].weight.zero_()
        half.linear[0].bias.fill_(1.0)
    added = half(torch.zeros(1, 100, 200), drawing=Drawing(0, (0,))).detach()
    assert float((added == 0).float().mean()) == pytest.approx(0.3, abs=0.01)
    assert float(added.mean()) == pytest.approx(1.0, abs=0.02)
    assert float(added.max()) == pytest.approx(1 / 0.7)


def test_a_file_is_described(tmp_path):
    for save, name in ((save_pt, "a.pt"), (save_safetensors, "a.safetensors")):
        save(made(Structure((8, 24), activation="swish")), tmp_path / name)
        found = describe(tmp_path / name)
        assert (found["kind"], found["widths"], found["activation_func"]) == ("hypernetwork", [8, 24], "swish")
        assert found["parameters"] == sum(parameter_count(Structure((8, 24)), width) for width in (8, 24))
        assert found["linear"] is False and "a hypernetwork" in describe_text(found)
