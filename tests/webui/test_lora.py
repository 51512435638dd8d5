"""The WebUI's own loader takes every key that an extraction writes, and the U-Net does what the tuned one does."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from lib_dsm.extraction.checkpoint import extract_checkpoint
from lib_dsm.extraction.hypernetwork_lora import extract_hypernetwork
from lib_dsm.extraction.key_map import canonical, layers_of
from lib_dsm.extraction.options import ExtractionOptions, HypernetworkOptions
from lib_dsm.host.capturing import captured_contexts
from lib_dsm.host.studio import MICRO, StudioHost, load_model
from lib_dsm.jobs import Job
from lib_dsm.networks.hypernetwork import Hypernetwork, facts_of, save_pt
from lib_dsm.networks.hypernetwork_modules import Pairs, initialise
from lib_dsm.networks.hypernetwork_structure import Structure
from lib_dsm.networks.safetensors_files import read_header
from tests.webui.running import A1111, SECOND_CHECKPOINT

pytestmark = pytest.mark.hosts(A1111, why="the checkpoints of these are of sizes that the others cannot build")
RANK = 3


def tuned_like(base, only=None):
    """Everything the loader can change is changed: weights by a low rank, norms, lone biases and the ends wholly."""
    generator = torch.Generator().manual_seed(1)
    layers = layers_of({canonical(key): tuple(tensor.shape) for key, tensor in base.items()}, only or "SD1")
    names = {canonical(key): key for key in base}
    tuned = {key: tensor.float() for key, tensor in base.items()}
    for number, layer in enumerate(layers):
        key = names[layer.weight]
        shape = tuned[key].shape
        if len(shape) == 1:
            tuned[key] = tuned[key] * 1.05
            tuned[names[layer.bias]] = tuned[names[layer.bias]] + 0.02
        elif layer.bias and number % 5 == 0:
            tuned[names[layer.bias]] = tuned[names[layer.bias]] + 0.02
        elif layer.rows in (None, 0):
            columns = tuned[key][0].numel()
            change = torch.randn(shape[0], RANK, generator=generator) @ torch.randn(RANK, columns, generator=generator)
            tuned[key] = tuned[key] + 0.15 * tuned[key].std() * change.reshape(shape) / RANK**0.5
    return tuned


def made_of(webui, tmp_path, base_path, tensors, name):
    save_file(tensors, tmp_path / "tuned.safetensors")
    folder = webui.checkpoint.parent.parent / "Lora"
    out = folder / f"{name}.safetensors"
    report = extract_checkpoint(
        base_path,
        tmp_path / "tuned.safetensors",
        out,
        ExtractionOptions(rank=3 * RANK, conv_rank=RANK, precision="fp32"),
    )
    return report, out


def inputs(tmp_path, width):
    generator = torch.Generator().manual_seed(2)
    given = {
        "noisy": torch.randn(1, 4, 8, 8, generator=generator),
        "timesteps": torch.tensor([300]),
        "conditioning": torch.randn(1, 77, width, generator=generator),
    }
    save_file(given, tmp_path / "inputs.safetensors")
    return given


def distance(one, other):
    return float((one - other).norm() / other.norm())


def test_every_key_of_an_sd1_lora_is_taken_and_the_effect_is_that_of_the_tuned_checkpoint(webui, tmp_path):
    base = load_file(MICRO)
    tuned = tuned_like(base)
    report, out = made_of(webui, tmp_path, MICRO, tuned, "extracted")
    assert report.total_error < 1e-4
    given = inputs(tmp_path, 80)
    seen = webui.inside("lora", path=str(out), inputs=str(tmp_path / "inputs.safetensors"), out=str(tmp_path / "o.st"))
    assert seen["complaints"] == []
    assert len(seen["modules"]) == len({key.partition(".")[0] for key in read_header(out).shapes})
    assert seen["kinds"] == ["NetworkModuleFull", "NetworkModuleLora", "NetworkModuleNorm"]
    assert seen["metadata"]["ss_output_name"] == "extracted"
    found = load_file(tmp_path / "o.st")
    (tmp_path / "tuned.yaml").write_bytes(MICRO.with_suffix(".yaml").read_bytes())
    (tmp_path / "clip").symlink_to(MICRO.parent / "clip")
    model = load_model(tmp_path / "tuned.safetensors")
    with torch.no_grad():
        target = model.predict(given["noisy"], given["timesteps"], given["conditioning"])
    apart, left = distance(found["without"], target), distance(found["with"], target)
    print(
        f"distance from the tuned U-Net: {apart:.4f} without, {left:.6f} with the LoRA; {len(seen['modules'])} modules"
    )
    assert apart > 0.05 and left < 1e-3
    assert distance(found["after"], found["without"]) < 1e-5


def test_every_key_of_an_sd2_lora_is_taken(webui, tmp_path):
    checkpoint = webui.checkpoint.with_name(SECOND_CHECKPOINT)
    tuned = tuned_like(load_file(checkpoint), "SD2")
    _, out = made_of(webui, tmp_path, checkpoint, tuned, "extracted2")
    inputs(tmp_path, 256)
    webui.set_options(sd_model_checkpoint=SECOND_CHECKPOINT)
    try:
        seen = webui.inside(
            "lora", path=str(out), inputs=str(tmp_path / "inputs.safetensors"), out=str(tmp_path / "o.st")
        )
    finally:
        webui.set_options(sd_model_checkpoint=webui.checkpoint.name)
    assert seen["complaints"] == []
    assert len(seen["modules"]) == len({key.partition(".")[0] for key in read_header(out).shapes})
    found = load_file(tmp_path / "o.st")
    assert distance(found["with"], found["without"]) > 0.01


def test_a_hypernetwork_that_is_not_linear_is_fitted_on_the_model_that_the_webui_lends(webui, tmp_path):
    structure = Structure(widths=(80, 64, 128), layers=(1.0, 2.0, 1.0), activation="relu")
    pairs = Pairs.empty(structure)
    initialise(pairs, "Normal", 0.08, 1)
    path = tmp_path / "h.pt"
    save_pt(Hypernetwork(pairs.tensors(), facts_of(structure, "h", 1, "Normal")), path)
    folder = tmp_path / "captions"
    folder.mkdir()
    for number, text in enumerate(("1girl, red hair", "solo, blue hair, hat", "green eyes", "smile, dress", "frown")):
        (folder / f"{number}.txt").write_text(text)
    there = webui.inside("fitted", path=str(path), captions=str(folder), name="fitted")
    assert not there["changed"] and 0.2 < there["fit"] < 1
    # The studio's model, which has its modules in another order, gives every layer the same fit.
    host = StudioHost(tmp_path / "studio")
    captured = captured_contexts(host, path, str(MICRO), folder, Job("here"))
    report = extract_hypernetwork(
        path, MICRO, tmp_path / "here.safetensors", HypernetworkOptions(precision="fp32", force=True), captured
    )
    assert report.fits == pytest.approx(there["fits"], abs=0.03)
    inputs(tmp_path, 80)
    given = {"inputs": str(tmp_path / "inputs.safetensors"), "out": str(tmp_path / "o.st")}
    seen = webui.inside("lora", path=there["file"], **given)
    assert seen["complaints"] == [] and len(seen["modules"]) >= len(report.fits)
