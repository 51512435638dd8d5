"""Where a remedy is a change of settings, changing them so takes the finding away."""

import dataclasses

import pytest
import torch

from lib_dsm import options
from lib_dsm.guards.check import RULES, check, check_pictures, passed
from lib_dsm.networks.embedding import Embedding
from lib_dsm.networks.textual_inversion import Start
from lib_dsm.training.config import RunConfig
from lib_dsm.training.latents import Posterior
from lib_dsm.training.pictures import TrainingPicture, TrainingSet
from lib_dsm.training.templates import with_template
from tests.guards.known import facts, finding_of, found, picture, tagged

WORDS = {"smile": 1, "a b c": 3, "x" * 9: 90}
OLD = Start(torch.ones(4, 8), 1000, None, Embedding("asuka", torch.ones(4, 8), 1000, clip_skip=2))
LONG = [picture(source=(512, 800))]

CASES = {
    "init-too-long": facts(config={"vectors": 2, "init_text": "a b c"}, token_counts=WORDS),
    "vectors-odd": facts(config={"vectors": 40}),
    "name-is-a-word": facts(config={"name": "smile"}, token_counts=WORDS),
    "name-taken": facts(foreign_networks=frozenset(["zorgle-one"])),
    "template-without-name": facts(config={"template": ("a [filewords]", "", "[name]")}),
    "schedule-ends-early": facts(config={"learning_rate": "0.1:100, 0.01:500"}),
    "continue-beyond-steps": facts(config={"init_embedding": "asuka", "clip_skip": 2}, start=OLD),
    "init-clip-skip": facts(config={"init_embedding": "asuka", "max_steps": 2000}, start=OLD),
    "continue-nothing": facts(config={"init_continue": True}),
    "norm-fixed-zero": facts(config={"norm_control": "fixed", "init_text": ""}),
    "warmup-too-long": facts(config={"warmup_steps": 1000}),
    "cosine-jumps": facts(config={"schedule": "cosine", "learning_rate": "0.01:500, 0.5"}),
    "cycle-cut": facts(config={"schedule": "cosine restarts", "cycle_length": 300, "learning_rate": "0.01"}),
    "adam-betas": facts(config={"adam_beta1": 0.95, "adam_beta2": 0.8}),
    "decay-fixed": facts(config={"norm_control": "fixed", "weight_decay": 0.1}),
    "few-timesteps": facts(config={"timestep_sampling": "range", "timestep_min": 10, "timestep_max": 60}),
    "flip-asymmetric": facts(tagged("eyepatch"), {"flip": 0.5}),
    "clip-skip-changed": facts(record={"config": {"clip_skip": 2}}),
    "resume-beyond-steps": facts(record={}, saved_step=1000, published=True),
    "held-out-changed": facts(
        config={"validation_share": 0.1}, record={"config": {"seed": 5, "validation_share": 0.2}}
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_applying_it_takes_the_finding_away(case):
    run = CASES[case]
    settings = next(finding.to_json()["apply"] for finding in check(run) if finding.id == case)
    # As the page does: on top of the form's settings, through JSON and all the checks of the options.
    changed = options.from_json(RunConfig, {**options.to_json(run.config), **settings})
    assert settings and changed != run.config
    # Continuing is not the start's doing alone: without it the run starts at step 0.
    start = (
        dataclasses.replace(run.start, step=0) if settings.get("init_continue") is False and run.start else run.start
    )
    assert case not in found(dataclasses.replace(run, config=with_template(changed), start=start))


def test_a_crop_gets_less_first_by_variable_aspect_and_then_by_smaller_steps():
    run = facts(LONG, {"variable_aspect": False})
    assert finding_of(run, "much-cropped").apply == {"variable_aspect": True}
    assert finding_of(facts(LONG), "much-cropped").apply == {"size_step": 32}
    assert finding_of(facts(LONG, {"size_step": 8}), "much-cropped").apply == {}


def test_another_checkpoint_on_resume_is_offered_by_its_name():
    run = facts(record={"checkpoint": {"name": "nai.ckpt", "sha256": "aa"}}, checkpoint_hash="bb")
    assert finding_of(run, "checkpoint-changed").apply == {"checkpoint": "nai.ckpt"}


def test_a_mask_without_effect_can_be_turned_off():
    plain = TrainingPicture(picture().path, (16, 16), (), "hash", Posterior(torch.zeros(4, 2, 2), torch.zeros(4, 2, 2)))
    (finding,) = check_pictures(facts(config={"alpha_loss": True}), TrainingSet((plain,)))
    assert finding.apply == {"alpha_loss": False}


def test_what_no_setting_can_hold_is_not_offered():
    run = facts(config={"init_text": "x" * 9}, token_counts=WORDS)
    assert finding_of(run, "init-too-long").apply == {}


def test_guards_that_looked_and_found_nothing_are_counted():
    run = facts()
    fine = passed(run, check(run))
    untold = {"clip-skip-changed", "init-clip-skip", "dedupe"}  # neither resumed, nor from an embedding, nor compared
    assert len(fine) > 35 and not untold & {guard.ids[0] for guard in fine}
    resumed = facts(record={}, config={"vectors": 40})
    ids = {guard.ids[0] for guard in passed(resumed, check(resumed))}
    assert "clip-skip-changed" in ids and not {"vectors-odd", "init-zero", "dataset-changed"} & ids


@pytest.mark.parametrize("case", CASES)
def test_a_guard_finds_only_what_it_is_listed_with(case):
    for guard in RULES:
        assert {finding.id for finding in guard.rule(CASES[case])} <= set(guard.ids)
