"""Hypernetworks through a whole run in the studio: from pictures to the file, its steps, and going on."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from PIL import Image

from lib_dsm.errors import GuardError, InputError
from lib_dsm.host.create import create_network
from lib_dsm.host.past import past_run
from lib_dsm.host.run import examine_run, run_folder, train
from lib_dsm.host.steps import continue_from, use_step
from lib_dsm.jobs import Job
from lib_dsm.networks.hypernetwork import load_hypernetwork
from lib_dsm.training.config import PreviewRequest
from lib_dsm.training.run_folder import RunFolder

PREVIEW = PreviewRequest(prompt="solo", width=64, height=64, steps=2)


@pytest.fixture
def settings(run_config):
    def make(**changes):
        values = {
            "kind": "hypernetwork", "name": "style", "learning_rate": "0.0001", "template": ("[filewords]",),
            "output": "", "previews": (PREVIEW,), "save_every": 2, "validate_every": 0, "activation": "swish",
        }  # fmt: skip
        return run_config(**{**values, **changes})

    return make


@pytest.fixture
def ran(studio, settings):
    job = Job("test")
    return train(studio, settings(preview_every=2, validate_every=2), job), job


def test_from_pictures_to_the_file(studio, ran, micro):
    result, job = ran
    assert result.step == 4 and not result.stopped
    assert result.published == studio.folders.hypernetworks / "style.pt"
    assert [path.suffix for path in result.files] == [".pt", ".safetensors"]
    made = load_hypernetwork(result.published)
    assert (made.name, made.step, made.checkpoint_name) == ("style", 4, "micro")
    assert list(made.weights) == list(micro.context_widths())
    twin = load_hypernetwork(result.files[1])
    assert dict(twin.facts) == dict(made.facts)
    assert twin.weights[80][0]["linear.0.weight"].equal(made.weights[80][0]["linear.0.weight"])
    saved = load_hypernetwork(RunFolder(result.folder).state_file(2, "style.pt"))
    assert saved.step == 2 and not saved.weights[80][1]["linear.0.weight"].equal(made.weights[80][1]["linear.0.weight"])
    data = job.data
    assert data["network"] == "hypernetwork" and data["vocabulary"] is None and data["published_step"] == 4
    assert [preview["step"] for preview in data["previews"]] == [2, 4] and len(data["validation"]["series"]) == 3
    assert any("<hypernet:style:1>" in line for line in job.snapshot()["lines"])
    again = past_run(studio, result.folder).data
    assert again["published_step"] == 4 and again["network"] == "hypernetwork"
    assert not list(studio.folders.embeddings.glob("*")) if studio.folders.embeddings.is_dir() else True


def test_what_was_trained_changes_pictures_by_its_strength(studio, settings):
    drawn = []
    for number, strength in enumerate((0.0, 0.5, 1.0)):
        config = settings(
            name=f"style{number}", preview_every=2, max_steps=2, preview_strength=strength, weight_init="XavierNormal"
        )
        result = train(studio, config, Job("test"))
        drawn.append(Image.open(RunFolder(result.folder).preview_file(2, 0)).convert("RGB").tobytes())
    assert len(set(drawn)) == 3


def test_stopped_and_resumed_gives_the_same_bits(studio, settings, tmp_path):
    config = settings(dropout_structure=(0, 0.3, 0), max_steps=6, save_every=3, flip=0.5, shuffle_tags=True)
    whole = train(studio, config, Job("test")).published.read_bytes()
    half = dataclasses.replace(config, max_steps=3, overwrite=True)
    train(studio, half, Job("test"))
    result = train(studio, config, Job("test"), resume=True)
    assert result.published.read_bytes() == whole


def test_dropout_depends_on_neither_the_parts_nor_recomputation(studio, settings):
    ends = []
    for batch, recompute in ((2, "never"), (2, "always"), (1, "never")):
        config = settings(
            name=f"s{len(ends)}", dropout_structure=(0, 0.4, 0), batch_size=batch, gradient_accumulation=2 // batch,
            recompute=recompute, max_steps=2, batch_by_size=False,
        )  # fmt: skip
        made = load_hypernetwork(train(studio, config, Job("test")).published)
        ends.append(torch.cat([t.flatten() for pair in made.weights.values() for half in pair for t in half.values()]))
    assert torch.equal(ends[0], ends[1])
    assert torch.allclose(ends[0], ends[2], atol=2e-5)
    plain = load_hypernetwork(train(studio, settings(name="plain", max_steps=2), Job("test")).published)
    without = torch.cat([t.flatten() for pair in plain.weights.values() for half in pair for t in half.values()])
    assert not torch.allclose(ends[0], without, atol=2e-5)


def test_a_step_can_be_used_and_gone_on_from(studio, ran, settings):
    result, _ = ran
    used = use_step(studio, result.folder, 2)
    assert load_hypernetwork(used.published).step == 2
    assert past_run(studio, result.folder).data["published_step"] == 2
    with pytest.raises(InputError, match="no saved step 1"):
        use_step(studio, result.folder, 1)
    config = continue_from(studio, result.folder, 2, {"name": "other"})
    assert train(studio, config, Job("test"), resume=True).step == 4
    one, other = (load_hypernetwork(result.folder.parent / f"{name}.safetensors") for name in ("other", "style"))
    assert one.name == "other" and one.step == 4
    ended = load_hypernetwork(RunFolder(result.folder).state_file(4, "style.pt"))
    assert all(
        torch.equal(half[key], ended.weights[width][place][key])
        for width, pair in one.weights.items() for place, half in enumerate(pair) for key in half
    )  # fmt: skip
    assert other.step == 2


def test_an_untrained_one_is_written_and_trained_on(studio, settings):
    job = Job("test")
    made = create_network(studio, settings(name="begin", widths=(80,), layer_structure=(1, 1.5, 1)), job)
    assert made.published == studio.folders.hypernetworks / "begin.pt" and "untrained" in job.data["summary"]
    found = load_hypernetwork(made.published)
    assert found.step == 0 and list(found.weights) == [80] and found.structure.layers == (1, 1.5, 1)
    made.published.write_bytes(made.published.read_bytes() + b"\0")  # somebody else's now
    with pytest.raises(GuardError, match='There is a hypernetwork "begin" already'):
        create_network(studio, settings(name="begin"), Job("test"))
    config = settings(name="trained", init_hypernetwork="begin", max_steps=2)
    trained = load_hypernetwork(train(studio, config, Job("test")).published)
    assert list(trained.weights) == [80] and trained.structure.layers == (1, 1.5, 1)
    # It goes on although the file it began with has gone.
    made.published.unlink()
    assert train(studio, dataclasses.replace(config, max_steps=3), Job("test"), resume=True).step == 3


def test_the_optimizer_goes_on_in_another_program_and_back(studio, settings):
    result = train(studio, settings(max_steps=2, save_optimizer=True), Job("test"))
    beside = result.published.with_name("style.pt.optim")
    assert beside.is_file() and (result.folder.parent / "style.pt.optim").is_file()
    content = torch.load(beside, weights_only=True)
    assert content["optimizer_name"] == "AdamW" and len(content["optimizer_state_dict"]["state"]) == 4 * 2 * len(
        load_hypernetwork(result.published).weights
    )
    job = Job("test")
    on = train(studio, settings(name="on", init_hypernetwork="style", init_continue=True, max_steps=4, seed=0), job)
    assert on.step == 4 and any("optimizer goes on from style.pt.optim" in line for line in job.snapshot()["lines"])
    whole = train(studio, settings(name="whole", max_steps=4), Job("test"))
    one, other = (load_hypernetwork(result.published) for result in (on, whole))
    assert all(
        torch.equal(half[key], other.weights[width][place][key])
        for width, pair in one.weights.items() for place, half in enumerate(pair) for key in half
    )  # fmt: skip
    with result.published.open("ab") as file:
        file.write(b"\0")
    found, _ = examine_run(studio, settings(name="on2", init_hypernetwork="style", init_continue=True, max_steps=9))
    assert "stale-optimizer" in {finding.id for finding in found}


def test_a_rate_that_breaks_it_keeps_the_last_good_file(studio, settings):
    config = settings(max_steps=2, save_every=1)
    published = train(studio, config, Job("test")).published
    good = published.read_bytes()
    wild = dataclasses.replace(config, max_steps=60, learning_rate="1e30", override=("hyper-rate",))
    with pytest.raises(GuardError, match="not a number"):
        train(studio, wild, Job("test"), resume=True)
    assert published.read_bytes() == good
    folder = run_folder(studio, config)
    for step in folder.saved_steps():
        load_hypernetwork(folder.state_file(step, "style.pt"))
    assert 2 in folder.saved_steps()


def test_a_rate_for_embeddings_is_refused(studio, settings):
    with pytest.raises(GuardError, match=r"0\.005 is one for embeddings"):
        train(studio, settings(learning_rate="0.005"), Job("test"))
    found, passed = examine_run(studio, settings(learning_rate="0.00001"))
    ids = {finding.id for finding in found}
    assert not ids & {"template-without-name", "vectors-odd", "init-zero", "hyper-rate", "long-caption"}
    assert "hyper-rate" in {guard.ids[0] for guard in passed}


def test_another_structure_or_optimizer_does_not_go_on(studio, settings):
    config = settings(max_steps=2)
    train(studio, config, Job("test"))
    for changes, match in (
        ({"layer_structure": (1, 3, 1)}, "layer structure 1, 2, 1"),
        ({"activation": "relu"}, "activation swish"),
        ({"widths": (80,)}, "widths"),
    ):
        with pytest.raises(GuardError, match=match):
            train(studio, dataclasses.replace(config, max_steps=4, **changes), Job("test"), resume=True)
