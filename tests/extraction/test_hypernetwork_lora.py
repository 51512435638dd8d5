"""A hypernetwork's effect on the demo world's U-Net, and that of the LoRA made of it."""

from dataclasses import replace

import pytest
import safetensors.torch
import torch

from lib_dsm.diffusion.protocol import DiffusionModel
from lib_dsm.errors import InputError, ModelError
from lib_dsm.extraction.capture import attention_names, capture
from lib_dsm.extraction.hypernetwork_lora import BadFitError, extract_hypernetwork
from lib_dsm.extraction.key_map import layers_of
from lib_dsm.extraction.lora_file import LoraFile
from lib_dsm.extraction.options import HypernetworkOptions
from lib_dsm.host.studio import MICRO as CHECKPOINT
from lib_dsm.host.studio import load_model
from lib_dsm.networks.hypernetwork import Hypernetwork, facts_of, load_hypernetwork, save_pt
from lib_dsm.networks.hypernetwork_modules import Pairs, initialise
from lib_dsm.networks.hypernetwork_structure import Structure

EXACT = HypernetworkOptions(precision="fp32")
CAPTIONS = [
    "1girl, red hair, smile", "solo, blue hair", "green eyes, hat", "1girl, solo, long hair, dress", "smile",
    "blue eyes, short hair, frown", "solo, brown hair, glasses", "1girl, white hair, hat, red dress",
]  # fmt: skip


@pytest.fixture(scope="module")
def model() -> DiffusionModel:
    return load_model(CHECKPOINT)


@pytest.fixture(scope="module")
def base():
    return safetensors.torch.load_file(CHECKPOINT)


def hypernetwork(path, seed=1, deviation=0.3, **facts):
    """A hypernetwork with every number another one, and its halves."""
    structure = Structure(**{"widths": (80, 64, 128), "layers": (1.0, 2.0, 1.0), **facts})
    pairs = Pairs.empty(structure)
    initialise(pairs, "Normal", 0.08, seed)
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in pairs.named_parameters():
        if name.endswith("bias"):
            tensor.data.copy_(deviation * torch.randn(tensor.shape, generator=generator))
    save_pt(Hypernetwork(pairs.tensors(), facts_of(structure, "h", 1, "Normal")), path)
    return pairs


def predicted(model, maps=None):
    generator = torch.Generator().manual_seed(3)
    noisy = torch.randn(1, 4, 8, 8, generator=generator)
    with torch.no_grad():
        conditioning = model.encode_prompts(["1girl, red hair"], {}, 1)
        if maps is None:
            return model.predict(noisy, torch.tensor([400]), conditioning)
        with model.contexts_changed(maps):
            return model.predict(noisy, torch.tensor([400]), conditioning)


def maps_of(pairs, strength=1.0):
    return {
        width: tuple(lambda context, number, half=half: half(context, strength) for half in halves)
        for width, halves in pairs.halves.items()
    }


def with_lora(base, path, folder):
    """The model of a checkpoint changed by the file, by the formulas of loaders."""
    names = {layer.name: layer.weight for layer in layers_of({key: tuple(t.shape) for key, t in base.items()})}
    lora, result = safetensors.torch.load_file(path), dict(base)
    for module in {key.partition(".")[0] for key in lora}:
        parts = {key.partition(".")[2]: tensor for key, tensor in lora.items() if key.startswith(f"{module}.")}
        weight = base[names[module]]
        if "lora_up.weight" in parts:
            change = parts["lora_up.weight"].float().flatten(1) @ parts["lora_down.weight"].float().flatten(1)
        elif "a1.weight" in parts:
            change = weight.float() @ parts["a2.weight"] @ parts["a1.weight"]
        else:
            change = parts["diff"]
        result[names[module]] = weight.float() + (change if change.numel() == 1 else change.reshape(weight.shape))
        if "diff_b" in parts:
            bias = names[module].removesuffix("weight") + "bias"
            result[bias] = base[bias].float() + parts["diff_b"]
    safetensors.torch.save_file({key: tensor.float() for key, tensor in result.items()}, folder / "with.safetensors")
    (folder / "with.yaml").write_bytes(CHECKPOINT.with_suffix(".yaml").read_bytes())
    if not (folder / "clip").exists():
        (folder / "clip").symlink_to(CHECKPOINT.parent / "clip")
    return load_model(folder / "with.safetensors")


def distance(one, other):
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize("facts", [{}, {"layers": (1.0, 0.125, 1.0)}, {"layers": (1.0, 2.0, 1.5, 1.0), "skip": True}],
                         ids=["full rank", "narrow", "skips"])  # fmt: skip
def test_a_linear_one_is_exact_with_the_values_bias_and_whatever_the_keys_bias(model, base, tmp_path, facts):
    pairs = hypernetwork(tmp_path / "h.pt", **facts)
    assert load_hypernetwork(tmp_path / "h.pt").structure.linear
    report = extract_hypernetwork(tmp_path / "h.pt", CHECKPOINT, tmp_path / "o.safetensors", EXACT)
    assert report.exact and report.fit == pytest.approx(1.0, abs=1e-6)
    target, without = predicted(model, maps_of(pairs)), predicted(model)
    assert distance(without, target) > 0.02
    assert distance(predicted(with_lora(base, report.path, tmp_path)), target) < 1e-4
    names = {key.partition(".")[0] for key in safetensors.torch.load_file(report.path)}
    assert any(name.endswith("to_out_0") for name in names)


def test_strength_rank_and_independence(model, base, tmp_path):
    pairs = hypernetwork(tmp_path / "h.pt", deviation=0.0)
    for number, options in enumerate((
        HypernetworkOptions(precision="fp32", strength=0.5),
        HypernetworkOptions(precision="fp32", strength=0.5, independent=True),
    )):  # fmt: skip
        report = extract_hypernetwork(tmp_path / "h.pt", CHECKPOINT, tmp_path / f"{number}.safetensors", options)
        target = predicted(model, maps_of(pairs, 0.5))
        assert distance(predicted(with_lora(base, report.path, tmp_path)), target) < 1e-4
    little = HypernetworkOptions(rank=2, precision="fp32")
    with pytest.raises(BadFitError, match=r"would hold \d+% of the hypernetwork's squared change"):
        extract_hypernetwork(tmp_path / "h.pt", CHECKPOINT, tmp_path / "r.safetensors", little)
    assert not (tmp_path / "r.safetensors").exists()
    coarse = extract_hypernetwork(
        tmp_path / "h.pt", CHECKPOINT, tmp_path / "r.safetensors", replace(little, least_fit=0.0)
    )
    assert 0.05 < coarse.fit < 0.5 and f"{coarse.fit:.1%}" in coarse.text() and "itself" not in coarse.text()


def test_a_bias_that_no_checkpoint_shares_is_no_part_of_the_fit(tmp_path):
    options = HypernetworkOptions(precision="fp32", independent=True, force=True)
    hypernetwork(tmp_path / "h.pt", deviation=0.05)
    report = extract_hypernetwork(tmp_path / "h.pt", CHECKPOINT, tmp_path / "o.safetensors", options)
    assert not report.exact and report.fit < 0.999 and "itself" not in report.text() and "bias" in report.text()
    assert all((fit < 1) == name.endswith("to_v") for name, fit in report.fits.items())


@pytest.mark.parametrize("least", [0.5, 0.0])
def test_a_fit_worse_than_none_is_said_in_words_and_taken_at_no_demand(model, base, tmp_path, least):
    hypernetwork(tmp_path / "h.pt", activation="relu", widths=(80,))
    names = attention_names(base, middle_last=True)
    generator = torch.Generator().manual_seed(1)
    # The prompt that is kept apart lies on the other side, where other units are on.
    along = torch.randn(80, generator=generator)
    captured = {name: [torch.linspace(1, 3, 20)[:, None] * along * (-20 if place == 1 else 1) for place in range(3)]
                for name in names if base[f"{name}.to_k.weight"].shape[1] == 80}  # fmt: skip
    options = HypernetworkOptions(rank=4, least_fit=least)
    out = tmp_path / "o.safetensors"
    if least:
        with pytest.raises(BadFitError, match="would hold nothing of"):
            extract_hypernetwork(tmp_path / "h.pt", CHECKPOINT, out, options, captured)
    else:
        report = extract_hypernetwork(tmp_path / "h.pt", CHECKPOINT, out, options, captured)
        assert report.fit < 0 and "holds nothing of" in report.text() and out.exists()


def captured_for(model, base, captions):
    found = capture(model, (80, 64, 128), captions, 1, side=8)
    names = attention_names(base, middle_last=True)
    assert len(names) == len(found)
    return dict(zip(names, found, strict=True))


def test_captured_contexts_are_those_of_their_layers(model, base):
    captured = captured_for(model, base, CAPTIONS[:2])
    for name, contexts in captured.items():
        assert contexts[0].shape[1] == base[f"{name}.to_k.weight"].shape[1] and len(contexts) == 2
    # Cross-attention sees the prompt, whichever layer it is.
    cross = [contexts for name, contexts in captured.items() if name.endswith("attn2")]
    prompt = model.encode_prompts(CAPTIONS[:1], {}, 1)[0]
    for contexts in cross:
        assert torch.cdist(contexts[0], prompt).min(1).values.max() < 1e-2


@pytest.mark.long
def test_others_are_fitted_and_bad_fits_refused(model, base, tmp_path):
    pairs = hypernetwork(tmp_path / "h.pt", activation="relu", widths=(80,), deviation=0.2)
    assert not load_hypernetwork(tmp_path / "h.pt").structure.linear
    out = tmp_path / "o.safetensors"
    with pytest.raises(InputError, match="relu"):
        extract_hypernetwork(tmp_path / "h.pt", CHECKPOINT, out, EXACT)
    captured = captured_for(model, base, CAPTIONS)
    report = extract_hypernetwork(
        tmp_path / "h.pt", CHECKPOINT, out, HypernetworkOptions(precision="fp32", least_fit=0.0), captured
    )
    assert not report.exact and 0.3 < report.fit < 1
    target, without = predicted(model, maps_of(pairs)), predicted(model)
    assert distance(predicted(with_lora(base, out, tmp_path)), target) < 0.6 * distance(without, target)
    bad = tmp_path / "bad.safetensors"
    strict = HypernetworkOptions(rank=1, least_fit=0.999)
    with pytest.raises(ModelError, match="R² on captions"):
        extract_hypernetwork(tmp_path / "h.pt", CHECKPOINT, bad, strict, captured)
    assert not bad.exists()
    forced = HypernetworkOptions(rank=1, least_fit=0.999, force=True)
    assert extract_hypernetwork(tmp_path / "h.pt", CHECKPOINT, bad, forced, captured).fit < 0.999


def test_widths_that_the_checkpoint_has_not(tmp_path):
    hypernetwork(tmp_path / "h.pt", widths=(768,))
    with pytest.raises(ModelError, match="768"):
        extract_hypernetwork(tmp_path / "h.pt", CHECKPOINT, tmp_path / "o.safetensors", EXACT)


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_nan_and_infinity_are_refused_in_the_hypernetwork_and_in_its_base(base, tmp_path, broken):
    out = tmp_path / "o.safetensors"
    hypernetwork(tmp_path / "h.pt")
    key = "model.diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_v.weight"
    weight = base[key].clone()
    weight[0, 0] = broken
    safetensors.torch.save_file({**base, key: weight}, tmp_path / "base.safetensors")
    with pytest.raises(ModelError, match=f"{key} holds NaN"):
        extract_hypernetwork(tmp_path / "h.pt", tmp_path / "base.safetensors", out, EXACT)
    content = torch.load(tmp_path / "h.pt", weights_only=False)
    content[64][1]["linear.0.weight"][0, 0] = broken  # no code of ours would save that
    torch.save(content, tmp_path / "h.pt")
    with pytest.raises(ModelError, match=r"64\.v\.linear\.0\.weight holds NaN.*h\.pt"):
        extract_hypernetwork(tmp_path / "h.pt", CHECKPOINT, out, EXACT)
    assert not out.exists()


@pytest.mark.parametrize("independent", [False, True])
def test_a_half_that_changes_nothing_is_no_module_and_nothing_at_all_is_refused(tmp_path, independent):
    out = tmp_path / "o.safetensors"
    pairs = hypernetwork(tmp_path / "h.pt", deviation=0.0)
    options = HypernetworkOptions(precision="fp32", independent=independent)
    with pytest.raises(ModelError, match="changes nothing at the strength 0"):
        extract_hypernetwork(tmp_path / "h.pt", CHECKPOINT, out, replace(options, strength=0.0))
    assert not out.exists()
    for keys, _ in pairs.halves.values():
        for parameter in keys.parameters():
            parameter.data.zero_()
    save_pt(Hypernetwork(pairs.tensors(), facts_of(pairs.structure, "h", 1, "Normal")), tmp_path / "h.pt")
    report = extract_hypernetwork(tmp_path / "h.pt", CHECKPOINT, out, options)
    tensors = safetensors.torch.load_file(out)
    assert tensors and not any("to_k" in name for name in tensors) and not any("to_k" in name for name in report.fits)
    assert all(tensor.numel() for tensor in tensors.values())
    with pytest.raises(ModelError, match="changes nothing"):
        for parameter in pairs.parameters():
            parameter.data.zero_()
        save_pt(Hypernetwork(pairs.tensors(), facts_of(pairs.structure, "h", 1, "Normal")), tmp_path / "h.pt")
        extract_hypernetwork(tmp_path / "h.pt", CHECKPOINT, tmp_path / "none.safetensors", options)


def test_values_that_get_a_bias_alone_are_a_bias_alone(tmp_path):
    pairs = hypernetwork(tmp_path / "h.pt")
    for name, parameter in pairs.named_parameters():
        if name.endswith("weight"):
            parameter.data.zero_()
    save_pt(Hypernetwork(pairs.tensors(), facts_of(pairs.structure, "h", 1, "Normal")), tmp_path / "h.pt")
    report = extract_hypernetwork(tmp_path / "h.pt", CHECKPOINT, tmp_path / "o.safetensors", EXACT)
    tensors = safetensors.torch.load_file(report.path)
    assert {name.partition(".")[2] for name in tensors} == {"diff", "diff_b"} and not report.fits
    assert report.exact and "itself" in report.text()


def test_no_file_with_nan_is_written(tmp_path):
    lora = LoraFile()
    lora.add_difference("lora_unet_conv_in", torch.tensor([1.0, float("nan")]), None)
    with pytest.raises(ModelError, match=r"lora_unet_conv_in\.diff"):
        lora.save(tmp_path / "o.safetensors")
    assert not list(tmp_path.iterdir())
