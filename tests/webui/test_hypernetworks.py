"""Hypernetworks in the WebUI: its own and ours give the same numbers, as does the studio."""

from __future__ import annotations

import itertools

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from lib_dsm.host.studio import load_model
from lib_dsm.networks.hypernetwork import Hypernetwork, facts_of, load_hypernetwork, save_pt
from lib_dsm.networks.hypernetwork_structure import Structure
from lib_dsm.networks.hypernetwork_training import HypernetworkTraining, drawn_start
from tests.webui.running import A1111

pytestmark = pytest.mark.hosts(A1111, why="only AUTOMATIC1111's WebUI applies hypernetworks when it generates")
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


@pytest.fixture
def run(webui, character):
    """The settings of a small run, as RUN.json; the folder is opened as a project, and the hypernetwork is removed."""
    webui.call("/dsm/v1/project/open", {"path": str(character)})
    yield {
        "kind": "hypernetwork", "name": "inkstyle", "checkpoint": webui.checkpoint.name, "dataset": str(character),
        "learning_rate": "0.0003", "max_steps": 4, "batch_size": 2, "gradient_accumulation": 1, "width": 96,
        "height": 64, "size_step": 8, "save_every": 2, "preview_every": 2, "weight_init": "XavierNormal",
        "activation": "swish", "dropout_structure": [0, 0.2, 0], "preview_strength": 0.7, "overwrite": True,
        "previews": [{"prompt": "solo, red hair", "width": 64, "height": 64, "steps": 4, "seed": 1}],
    }  # fmt: skip
    for path in (webui.data / "models" / "hypernetworks").glob("inkstyle*"):
        path.unlink()


def test_from_pictures_to_a_hypernetwork_in_a_prompt(webui, run):
    before, without = webui.inside("snapshot"), webui.txt2img(prompt="solo, red hair")
    job = webui.wait_for_job(webui.call("/dsm/v1/train/start", {"config": run})["job"])
    assert (job["state"], job["done"], job["total"]) == ("done", 4, 4), job["error"]
    # It is in the WebUI's list at once, and generation gives the preview's picture.
    assert "inkstyle" in {item["name"] for item in webui.call("/sdapi/v1/hypernetworks")}
    drawn = webui.picture(prompt="solo, red hair <hypernet:inkstyle:0.7>", cfg_scale=7.0)
    assert drawn.tobytes() == Image.open(job["data"]["previews"][-1]["path"]).convert("RGB").tobytes()
    assert drawn.tobytes() != without
    # An earlier step takes its place, although the WebUI has loaded this one.
    used = webui.wait_for_job(webui.call("/dsm/v1/train/use", {"run": "inkstyle", "step": 2})["job"])
    assert used["state"] == "done", used["error"]
    earlier = webui.picture(prompt="solo, red hair <hypernet:inkstyle:0.7>", cfg_scale=7.0)
    assert earlier.tobytes() == Image.open(job["data"]["previews"][0]["path"]).convert("RGB").tobytes()
    assert webui.txt2img(prompt="solo, red hair") == without
    assert webui.inside("snapshot") == before


def test_the_webuis_trainer_goes_on_with_ours(webui, run):
    """Its own loader takes the file and, from beside it, the optimizer's state."""
    config = {**run, "save_optimizer": True, "preview_every": 0}
    job = webui.wait_for_job(webui.call("/dsm/v1/train/start", {"config": config})["job"])
    assert job["state"] == "done", job["error"]
    found = webui.inside("hypernetwork_as_loaded", name="inkstyle")
    assert found["step"] == 4 and found["optimizer"] == "AdamW" and found["states"] == found["parameters"]
    assert found["activation"] == "swish" and found["dropout"] == [0, 0.2, 0]
