"""Hypernetworks in the WebUI: its own and ours give the same numbers, as does the studio."""

from __future__ import annotations

import itertools

import pytest
import torch
from safetensors.torch import load_file, save_file

from lib_dsm.host.studio import load_model
from lib_dsm.networks.hypernetwork import Hypernetwork, facts_of, load_hypernetwork, save_pt
from lib_dsm.networks.hypernetwork_structure import Structure
from lib_dsm.networks.hypernetwork_training import HypernetworkTraining, drawn_start

STRENGTHS = [0.5, 1.0]
KINDS = list(itertools.product(["linear", "relu", "swish"], [False, True]))


@pytest.fixture(scope="module")
def compared(webui, tmp_path_factory):
    """The files by kind, what the WebUI's process gave, and what the studio gives."""
    folder = tmp_path_factory.mktemp("hypernetworks")
    model = load_model(webui.other_checkpoint)
    files, networks = {}, {}
    for activation, norm in KINDS:
        name = f"{activation}-{norm}"
        structure = Structure(tuple(model.context_widths()), (1, 2, 1), activation, layer_norm=norm)
        start = drawn_start(structure, "XavierNormal", 0.01, 4)
        files[name] = folder / f"{name}.pt"
        save_pt(Hypernetwork(start.weights, facts_of(structure, name, 7, "XavierNormal")), files[name])
        networks[name] = HypernetworkTraining(name, structure, start.weights, model.device)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        conditioning = model.encode_prompts(["solo, red hair", "smile"], {}, 1)
    noisy, moments = torch.randn(2, 4, 8, 12, generator=generator), torch.tensor([10, 900])
    save_file({"noisy": noisy, "timesteps": moments, "conditioning": conditioning}, folder / "in")
    webui.inside(
        "apply_hypernetworks", checkpoint=webui.other_checkpoint.name, strengths=STRENGTHS,
        files={name: str(path) for name, path in files.items()}, inputs=str(folder / "in"), out=str(folder / "out"),
    )  # fmt: skip
    studio = {}
    for (name, network), strength in itertools.product(networks.items(), STRENGTHS):
        with torch.no_grad(), network.applied(model, strength):
            studio[f"{name} {strength}"] = model.predict(noisy, moments, conditioning)
    return files, load_file(folder / "out"), studio


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize(("activation", "norm"), KINDS)
def test_the_webuis_ours_and_the_studios_numbers_agree(compared, activation, norm, strength):
    _, made, studio = compared
    case = f"{activation}-{norm} {strength}"
    theirs, ours, there = made[f"theirs {case}"], made[f"ours {case}"], studio[case]
    print(f"{case}: {float((theirs - ours).abs().max()):.1e} {float((theirs - there).abs().max()):.1e}")
    assert float((theirs - ours).abs().max()) <= 1e-6
    assert float((theirs - there).abs().max()) <= 1e-4
    assert float((theirs - made["without"]).abs().max()) > 1e-2


def test_nothing_is_left_afterwards(compared):
    made = compared[1]
    assert torch.equal(made["without"], made["after"])


@pytest.mark.parametrize(("activation", "norm"), KINDS)
def test_the_webui_writes_again_what_it_read(compared, activation, norm):
    path = compared[0][f"{activation}-{norm}"]
    ours, theirs = load_hypernetwork(path), load_hypernetwork(path.with_suffix(".again.pt"))
    assert dict(ours.facts) == dict(theirs.facts)
    assert list(ours.weights) == list(theirs.weights)
    for width, pair in ours.weights.items():
        for half, again in zip(pair, theirs.weights[width], strict=True):
            assert list(half) == list(again)
            assert all(torch.equal(half[name], again[name]) for name in half)
