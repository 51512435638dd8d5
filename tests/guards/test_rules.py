from pathlib import Path

import pytest
import torch
from PIL import Image

from lib_dsm.dataset.looks import look
from lib_dsm.errors import GuardError
from lib_dsm.guards.check import check, check_pictures
from lib_dsm.guards.finding import Severity, demand
from lib_dsm.guards.set_aside import SetAside
from lib_dsm.guards.watch import watch_gradient, watch_loss
from lib_dsm.networks.embedding import Embedding
from lib_dsm.networks.textual_inversion import Start
from lib_dsm.training.latents import Posterior
from lib_dsm.training.pictures import Plan, TrainingPicture, TrainingSet
from tests.guards.known import facts, finding_of, found, picture


def test_a_good_run_has_no_findings():
    assert check(facts(token_counts={"zorgle-one": 4, "*": 1})) == []


@pytest.mark.parametrize("template", [("[filewords]",), ("[filewords], [name]", ""), ()])
def test_every_template_line_needs_the_name(template):
    assert found(facts(config={"template": template}))["template-without-name"] is Severity.BLOCK


def test_init_text_must_fit_the_vectors():
    run = facts(config={"vectors": 3, "init_text": "a b c d"}, token_counts={"a b c d": 4})
    assert found(run)["init-too-long"] is Severity.BLOCK
    assert "init-too-long" not in found(
        facts(config={"vectors": 4, "init_text": "a b c d"}, token_counts={"a b c d": 4})
    )


def test_an_empty_init_text_is_said():
    assert found(facts(config={"init_text": " "}))["init-zero"] is Severity.WARN


@pytest.mark.parametrize(
    ("vectors", "severity"),
    [
        (1, Severity.INFO), (2, None), (3, None), (8, Severity.INFO), (16, None), (18, None), (24, None),
        (25, Severity.INFO), (31, Severity.INFO), (32, Severity.WARN), (75, Severity.WARN),
    ],
)  # fmt: skip
def test_odd_numbers_of_vectors_are_said(vectors, severity):
    assert found(facts(config={"vectors": vectors})).get("vectors-odd") is severity


def test_the_name_must_be_new():
    assert found(facts(config={"name": "miku"}, token_counts={"miku": 1}))["name-is-a-word"] is Severity.BLOCK
    tagged = facts([picture(tags=["Zorgle-One"])], token_counts={"zorgle-one": 4})
    assert found(tagged)["name-is-a-word"] is Severity.BLOCK
    taken = facts(foreign_networks=frozenset(["zorgle-one"]))
    assert found(taken)["name-taken"] is Severity.BLOCK
    allowed = facts(config={"overwrite": True}, foreign_networks=frozenset(["zorgle-one"]))
    assert "name-taken" not in found(allowed)


def test_a_schedule_that_ends_early_is_said():
    assert found(facts(config={"learning_rate": "0.1:500"}))["schedule-ends-early"] is Severity.WARN


def test_an_external_vae_is_set_aside():
    assert found(facts(set_aside=SetAside(vae="kl-f8.vae.pt")))["vae-loaded"] is Severity.FIX


def test_attention_in_float32_is_said():
    assert found(facts(attention_upcast=True))["sd21-fp16"] is Severity.FIX


def test_a_clip_skip_without_effect_is_said_and_may_change():
    run = facts(config={"clip_skip": 2}, has_clip_skip=False, record={"config": {"clip_skip": 1}})
    assert found(run)["clip-skip-unknown"] is Severity.INFO
    assert "clip-skip-changed" not in found(run)
    assert "clip-skip-unknown" not in found(facts(has_clip_skip=False))


def test_clip_skip_must_stay_what_it_was():
    run = facts(config={"clip_skip": 1}, record={"config": {"clip_skip": 2}})
    assert found(run)["clip-skip-changed"] is Severity.BLOCK
    assert "clip-skip-changed" not in found(facts(config={"clip_skip": 2}, record={"config": {"clip_skip": 2}}))


def test_nothing_left_to_train_is_said():
    assert found(facts(record={}, saved_step=1000, published=True))["resume-beyond-steps"] is Severity.BLOCK
    assert "resume-beyond-steps" not in found(facts(record={}, saved_step=999, published=True))
    assert "resume-beyond-steps" not in found(facts(record={}, saved_step=1000, published=False))


def test_a_rate_that_has_ended_leaves_nothing_to_train_whatever_the_steps():
    run = {"record": {}, "published": True}
    ends = {"learning_rate": "0.0005:500", "max_steps": 800}
    blocked = [item for item in check(facts(config=ends, saved_step=500, **run)) if item.severity is Severity.BLOCK]
    assert [item.id for item in blocked] == ["resume-beyond-steps"] and "ends at step 500" in blocked[0].problem
    assert "resume-beyond-steps" not in found(facts(config=ends, saved_step=499, **run))
    goes_on = {**ends, "learning_rate": "0.0005:500, 0.0001"}
    assert "resume-beyond-steps" not in found(facts(config=goes_on, saved_step=500, **run))


def test_another_checkpoint_vae_or_dataset_is_noticed_on_resume():
    record = {"checkpoint": {"name": "nai", "sha256": "aa"}, "vae": "bb", "dataset": {"fingerprint": "cc"}}
    same = facts(record=record, checkpoint_hash="aa", vae_hash="bb", fingerprint="cc")
    assert check(same) == []
    other = found(facts(record=record, checkpoint_hash="x", vae_hash="y", fingerprint="z"))
    assert other["checkpoint-changed"] is other["vae-changed"] is Severity.BLOCK
    assert other["dataset-changed"] is Severity.WARN


@pytest.mark.parametrize(
    ("pictures", "expected"),
    [
        ([picture(tags=[])], "caption-missing"),
        ([picture(source=(5000, 500))], "extreme-aspect"),
        ([picture(source=(512, 800))], "much-cropped"),
        ([picture(tags=["saber (fate)"])], "brackets"),
        ([picture(tags=["2girls"])], "several-characters"),
        ([picture(tags=["multiple girls"])], "several-characters"),
        ([picture()], "few-images"),
    ],
)
def test_pictures_and_captions(pictures, expected):
    assert expected in found(facts(pictures))


def test_escaped_brackets_are_fine():
    assert "brackets" not in found(facts([picture(tags=[r"saber \(fate\)"])]))


def test_captions_that_do_not_fit_with_the_vectors():
    run = facts([picture(tags=["long"])], config={"vectors": 16}, token_counts={"long": 60})
    assert found(run)["long-caption"] is Severity.WARN
    assert "long-caption" not in found(facts([picture(tags=["long"])], token_counts={"long": 59}))


def test_unusable_files_are_listed():
    run = facts(plan=Plan((picture(),), ((Path("bad.jpg"), "bad.jpg is text."),), ("note.md: no picture",)))
    assert {"corrupt-image", "dataset-note"} <= found(run).keys()


def test_a_block_stops_unless_it_is_overridden_by_its_id():
    findings = check(facts(config={"template": ("x",)}))
    with pytest.raises(GuardError, match=r"\[name\]"):
        demand(findings)
    demand(findings, override=("template-without-name",))


@pytest.mark.parametrize(("loss", "gradient"), [(float("nan"), 1.0), (float("inf"), 1.0), (1.0, float("nan"))])
def test_numbers_that_are_none_stop_the_run(loss, gradient):
    with pytest.raises(GuardError, match="not a number"):
        watch_loss(loss, gradient, 7)
    watch_loss(0.1, 0.2, 7)


def test_no_gradient_stops_the_run():
    with pytest.raises(GuardError, match="no gradient"):
        watch_gradient(0.0)
    watch_gradient(1e-12)


def test_a_mean_or_an_embedding_takes_words_of_any_number():
    for settings in ({"init_mode": "mean"}, {"init_embedding": "asuka"}):
        run = facts(config={"vectors": 1, "init_text": "a b", **settings}, token_counts={"a b": 2})
        assert "init-too-long" not in found(run)
    assert "init-zero" not in found(facts(config={"init_text": "", "init_embedding": "asuka"}))
    assert found(facts(config={"init_text": "", "init_mode": "mean"}))["init-zero"] is Severity.WARN


def started(step=0, **known) -> Start:
    vectors = torch.ones(4, 8)
    return Start(vectors, step, None, Embedding("asuka", vectors, step, **known))


def test_an_embedding_that_has_made_all_steps_cannot_go_on():
    settings = {"init_embedding": "asuka", "init_continue": True}
    assert found(facts(config=settings, start=started(1000)))["continue-beyond-steps"] is Severity.BLOCK
    assert "continue-beyond-steps" not in found(facts(config=settings, start=started(999)))
    # the rate may end before the steps do
    ends = {**settings, "learning_rate": "0.1:500", "max_steps": 1000}
    assert "continue-beyond-steps" in found(facts(config=ends, start=started(500)))


def test_an_embedding_to_go_on_with_must_be_named():
    assert found(facts(config={"init_continue": True}))["continue-nothing"] is Severity.WARN
    assert "continue-nothing" not in found(facts(config={"init_continue": True, "init_embedding": "a"}))


def test_an_embedding_of_another_model_or_clip_skip_is_said():
    settings = {"init_embedding": "asuka", "clip_skip": 1}
    other = started(clip_skip=2, checkpoint_hash="aabbccddee", checkpoint_name="nai")
    run = facts(config=settings, start=other, checkpoint_hash="ff" * 32)
    assert found(run)["init-clip-skip"] is found(run)["init-checkpoint"] is Severity.WARN
    same = started(clip_skip=1, checkpoint_hash="aabbccddee")
    assert check(facts(config=settings, start=same, checkpoint_hash="aabbccddee" + "0" * 54)) == []
    # an old file's eight digits are another kind of hash, and what is unknown is no difference
    for known in ({"checkpoint_hash": "12345678"}, {}):
        assert check(facts(config=settings, start=started(**known), checkpoint_hash="ff" * 32)) == []


def test_the_length_of_nothing_cannot_be_fixed():
    fixed = {"norm_control": "fixed"}
    assert found(facts(config={**fixed, "init_text": ""}))["norm-fixed-zero"] is Severity.BLOCK
    zeros = Start(torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
    assert found(facts(config={**fixed, "init_embedding": "a"}, start=zeros))["norm-fixed-zero"] is Severity.BLOCK
    assert "norm-fixed-zero" not in found(facts(config={**fixed, "init_embedding": "a"}, start=started()))
    assert "norm-fixed-zero" not in found(facts(config={"norm_control": "decay", "init_text": ""}))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"warmup_steps": 1000}, "warmup-too-long"),
        ({"warmup_steps": 999}, None),
        ({"warmup_steps": 100, "learning_rate": "0.1:100"}, "warmup-too-long"),
        ({"schedule": "cosine"}, None),
        ({"schedule": "cosine", "learning_rate": "0.1:500, 0.01"}, "cosine-jumps"),
        ({"schedule": "cosine", "learning_rate": "0.1:1000, 0.01"}, None),
        ({"schedule": "cosine restarts", "cycle_length": 250}, None),
        ({"schedule": "cosine restarts", "cycle_length": 300}, "cycle-cut"),
        ({"schedule": "cosine restarts", "cycle_length": 2000}, "cycle-cut"),
        ({"schedule": "cosine restarts", "cycle_length": 100, "cycle_multiplier": 2, "warmup_steps": 300}, None),
        ({"adam_beta1": 0.95, "adam_beta2": 0.8}, "adam-betas"),
        ({"adam_beta1": 0.9, "adam_beta2": 0.99}, None),
        ({"adam_beta1": 0.0, "adam_beta2": 0.0}, None),
        ({"norm_control": "fixed", "weight_decay": 0.1}, "decay-fixed"),
        ({"norm_control": "decay", "weight_decay": 0.1}, None),
        ({"timestep_sampling": "range", "timestep_min": 10, "timestep_max": 60}, "few-timesteps"),
        ({"timestep_sampling": "range", "timestep_min": 10, "timestep_max": 600}, None),
        ({"timestep_min": 10, "timestep_max": 60}, None),
    ],
)
def test_rates_and_losses(settings, expected):
    run = facts(config={"learning_rate": "0.005", **settings})
    assert [finding.id for finding in check(run) if finding.id != "schedule-ends-early"] == [expected] * bool(expected)


def test_a_cut_cycle_says_where_it_would_end():
    run = facts(config={"learning_rate": "0.005", "schedule": "cosine restarts", "cycle_length": 300})
    (finding,) = check(run)
    assert (
        "200 before" in finding.problem
        and finding.remedy == "1200 steps would finish it, 900 end with the cycle before."
    )


@pytest.mark.parametrize(
    ("tag", "one_sided"),
    [
        ("heterochromia", True), ("hair_over_one_eye", True), ("hair over one eye", True), ("single glove", True),
        ("asymmetrical_legwear", True), ("mole under eye", True), ("Side Ponytail", True), ("prosthetic arm", True),
        ("scar across eye", True), ("right hand raised", True), ("one-piece swimsuit", False), ("bright pupils", False),
        ("twintails", False), ("moles", False), ("solo", False), ("looking to the side", False), ("gloves", False),
    ],
)  # fmt: skip
def test_mirroring_and_what_is_on_one_side(tag, one_sided):
    pictures = [picture(number, tags=[tag]) for number in range(120)]
    assert ("flip-asymmetric" in found(facts(pictures, {"flip": 0.5}))) == one_sided
    assert "flip-asymmetric" not in found(facts(pictures))


def test_copies_are_counted_and_some_named():
    one = look(Image.effect_noise((64, 64), 200).convert("RGB"))
    finding = finding_of(facts(looks={Path(f"{number}.png"): one for number in range(200)}), "dedupe")
    assert finding.problem.startswith("200 pictures look nearly like another one: 0.png and 1.png, 0.png and 2.png,")
    assert finding.problem.endswith("and 19895 more.")


def test_asymmetric_tags_are_counted_by_name():
    pictures = [picture(number, tags=["eyepatch"] * (number < 3) + ["monocle"] * (number < 7)) for number in range(120)]
    (finding,) = (finding for finding in check(facts(pictures, {"flip": 0.1})) if finding.id == "flip-asymmetric")
    assert "monocle (7), eyepatch (3)" in finding.problem
    many = [f"single {thing}" for thing in ("glove", "sock", "boot", "sleeve", "wing", "horn", "braid")]
    (finding,) = (finding for finding in check(facts([picture(tags=many)], {"flip": 0.1})) if "flip" in finding.id)
    assert finding.problem.endswith("single sleeve (1) and 2 more.")


def test_a_mask_that_no_picture_has_is_said_once_they_are_read():
    posterior = Posterior(torch.zeros(4, 2, 2), torch.zeros(4, 2, 2))
    plain = TrainingPicture(Path("a.png"), (16, 16), (), "hash", posterior)
    masked = TrainingPicture(Path("b.png"), (16, 16), (), "hash", posterior, weights=torch.ones(2, 2))
    run = facts(config={"alpha_loss": True})
    assert "alpha-unused" not in found(run)
    assert [finding.id for finding in check_pictures(run, TrainingSet((plain,)))] == ["alpha-unused"]
    assert check_pictures(run, TrainingSet((plain, masked))) == []
    assert check_pictures(facts(), TrainingSet((plain,))) == []
