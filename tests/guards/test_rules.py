from pathlib import Path

import pytest

from lib_dsm.errors import GuardError
from lib_dsm.guards.check import check
from lib_dsm.guards.facts import RunFacts
from lib_dsm.guards.finding import Severity, demand
from lib_dsm.guards.watch import watch_gradient, watch_loss
from lib_dsm.training.config import RunConfig
from lib_dsm.training.pictures import Plan, PlannedPicture


def picture(number=0, source=(512, 512), size=(512, 512), tags=("smile",)):
    return PlannedPicture(Path(f"{number}.png"), source, size, tuple(tags), bool(tags))


def facts(pictures=(), config=None, **changes) -> RunFacts:
    settings = {"name": "zorgle-one", "checkpoint": "model", "dataset": "folder", "max_steps": 1000, **(config or {})}
    pictures = pictures or [picture(number) for number in range(120)]
    known = {"plan": Plan(tuple(pictures), ()), **changes}
    return RunFacts(config=RunConfig(**settings), **known)


def found(run: RunFacts) -> dict[str, Severity]:
    return {finding.id: finding.severity for finding in check(run)}


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


def test_many_vectors_are_said():
    assert found(facts(config={"vectors": 32}))["vectors-odd"] is Severity.WARN
    assert "vectors-odd" not in found(facts(config={"vectors": 24}))


def test_the_name_must_be_new():
    assert found(facts(config={"name": "miku"}, token_counts={"miku": 1}))["name-is-a-word"] is Severity.BLOCK
    tagged = facts([picture(tags=["Zorgle-One"])], token_counts={"zorgle-one": 4})
    assert found(tagged)["name-is-a-word"] is Severity.BLOCK
    taken = facts(foreign_embeddings=frozenset(["zorgle-one"]))
    assert found(taken)["name-taken"] is Severity.BLOCK
    allowed = facts(config={"overwrite": True}, foreign_embeddings=frozenset(["zorgle-one"]))
    assert "name-taken" not in found(allowed)


def test_a_schedule_that_ends_early_is_said():
    assert found(facts(config={"learning_rate": "0.1:500"}))["schedule-ends-early"] is Severity.WARN


def test_an_external_vae_is_set_aside():
    assert found(facts(vae_replaced="kl-f8.vae.pt"))["vae-loaded"] is Severity.FIX


def test_clip_skip_must_stay_what_it_was():
    run = facts(config={"clip_skip": 1}, record={"config": {"clip_skip": 2}})
    assert found(run)["clip-skip-changed"] is Severity.BLOCK
    assert "clip-skip-changed" not in found(facts(config={"clip_skip": 2}, record={"config": {"clip_skip": 2}}))


def test_nothing_left_to_train_is_said():
    assert found(facts(record={}, saved_step=1000, published=True))["resume-beyond-steps"] is Severity.BLOCK
    assert "resume-beyond-steps" not in found(facts(record={}, saved_step=999, published=True))
    assert "resume-beyond-steps" not in found(facts(record={}, saved_step=1000, published=False))


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
