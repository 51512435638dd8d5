"""One click after a training: the run's last saved state as a LoRA file whose card tells where it comes from."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from lib_dsm.extraction.applied import Applied
from lib_dsm.extraction.hypernetwork_lora import BadFitError
from lib_dsm.extraction.lora_content import read_lora
from lib_dsm.host import lora_of_run as lora_module
from lib_dsm.host.lora_of_run import lora_of_run
from lib_dsm.host.run import train
from lib_dsm.host.studio import MICRO, load_model
from lib_dsm.jobs import Job
from lib_dsm.networks.hypernetwork import load_hypernetwork
from lib_dsm.networks.hypernetwork_training import HypernetworkTraining
from lib_dsm.networks.safetensors_files import read_header
from lib_dsm.training.config import PreviewRequest


@pytest.fixture
def hypernetwork_run(studio, run_config):
    """Trains a hypernetwork; gives its run's folder."""

    def make(activation):
        preview = PreviewRequest(prompt="solo", width=64, height=64, steps=2)
        config = run_config(
            kind="hypernetwork", name="style", learning_rate="0.002", template=("[filewords]",), previews=(preview,),
            activation=activation, preview_every=2, validate_every=0, clip_skip=2, override=("hyper-rate",),
            widths=(80,), weight_init="XavierNormal",
        )  # fmt: skip
        return train(studio, dataclasses.replace(config, output=""), Job("train")).folder

    return make


def predicted(model):
    noisy = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        return model.predict(noisy, torch.tensor([400]), model.encode_prompts(["solo, red hair"], {}, 1))


def test_a_linear_hypernetwork_is_the_lora_itself(studio, hypernetwork_run):
    run, job = hypernetwork_run("linear"), Job("lora")
    made = lora_of_run(studio, run, job)
    assert made == studio.folders.lora / "style-lora.safetensors"
    told = read_header(made).metadata
    assert told["ss_sd_model_name"] == MICRO.name and len(told["ss_new_sd_model_hash"]) == 64
    assert told["ss_clip_skip"] == "2" and told["ss_output_name"] == "style-lora" and float(told["dsm_fit"]) > 0.999
    assert "step 4" in told["ss_training_comment"] and float(told["ss_training_started_at"]) > 1e9
    assert json.loads(told["ss_tag_frequency"])["character0"]["solo"] == 12
    assert json.loads(told["ss_dataset_dirs"])["character0"]["img_count"] == 12
    assert json.loads(told["ssmd_cover_images"])
    assert json.loads(made.with_suffix(".json").read_text()) == {"sd version": "SD1"}
    facts = job.data["lora"]
    assert facts["prompt"] == "<lora:style-lora:1>" and facts["file"] == str(made) and facts["exact"]
    assert str(made) in job.data["summary"]

    model = load_model(MICRO)
    without = predicted(model)
    found = load_hypernetwork(studio.folders.hypernetworks / "style.pt")
    with HypernetworkTraining("style", found.structure, found.weights, model.device).applied(model):
        wanted = predicted(model)
    content = read_lora(made)
    with_lora = predicted(load_model(MICRO, lambda file: Applied(file, content).read))
    # The base is stored in half precision, and so is what is read of it with the LoRA added.
    assert (with_lora - wanted).norm() < 0.05 * (wanted - without).norm()


def test_another_one_is_fitted_and_a_bad_fit_is_refused_until_forced(studio, hypernetwork_run, monkeypatch):
    run, job = hypernetwork_run("relu"), Job("lora")
    made = lora_of_run(studio, run, job)
    facts = job.data["lora"]
    assert not facts["exact"] and 0.5 < facts["fit"] < 1 and len(facts["layers"]) == len(read_lora(made).modules)
    # One whose fit no file can reach.
    _demand(monkeypatch, 1.0)
    strict = Job("strict")
    with pytest.raises(BadFitError, match="R² on captions"):
        lora_of_run(studio, run, strict)
    assert strict.data["forceable"] and not (studio.folders.lora / "style-lora-2.safetensors").exists()
    assert lora_of_run(studio, run, Job("forced"), force=True).name == "style-lora-2.safetensors"


def _demand(monkeypatch, least):
    from lib_dsm.extraction import options

    whole = options.HypernetworkOptions
    monkeypatch.setattr(options, "HypernetworkOptions", lambda **given: whole(**{"least_fit": least, **given}))


def test_an_embeddings_lora_can_be_used_by_its_word(studio, run_config):
    run = train(studio, dataclasses.replace(run_config(preview_every=2), output=""), Job("train")).folder
    job = Job("lora")
    made = lora_of_run(studio, run, job, "mine")
    assert made.name == "mine.safetensors" and job.data["lora"]["prompt"] == "<lora:mine:1> zorgle"
    assert read_lora(made).embeddings["zorgle"]["string_to_param.*"].shape == (4, 80)


def test_an_embeddings_lora_is_made_even_if_the_checkpoint_is_gone(studio, run_config, monkeypatch):
    run = train(studio, dataclasses.replace(run_config(preview_every=2), output=""), Job("train")).folder
    settings = lora_module.settings_of_run(run)
    gone = dataclasses.replace(settings, checkpoint="deleted.safetensors")
    monkeypatch.setattr(lora_module, "settings_of_run", lambda path: gone)
    job = Job("lora")
    made = lora_of_run(studio, run, job)
    assert made.with_suffix(".json").exists() and "source" not in job.data["lora"]
    assert read_lora(made).embeddings.keys() == {"zorgle"}
