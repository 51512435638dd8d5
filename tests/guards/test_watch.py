import math

import pytest

from lib_dsm.errors import GuardError
from lib_dsm.guards import watch
from lib_dsm.guards.finding import Severity
from lib_dsm.training.verdict import Validation, Verdict, Vocabulary

WORDS = Vocabulary(0.3, 0.4, 0.5)


def verdict(state: str) -> Verdict:
    return Verdict(state, "It is so by 3 standard errors.", 3.0, "Do this.", 500, 250)


@pytest.mark.parametrize(("loss", "gradient"), [(math.nan, 1.0), (math.inf, 1.0), (1.0, math.nan), (1.0, math.inf)])
def test_what_is_no_number_stops(loss, gradient):
    with pytest.raises(GuardError, match="not a number"):
        watch.watch_loss(loss, gradient, 3)
    watch.watch_loss(1.0, 0.0, 3)


def test_no_gradient_stops():
    with pytest.raises(GuardError, match="no gradient"):
        watch.watch_gradient(0.0)
    watch.watch_gradient(1e-12)


def test_a_first_step_that_moves_nothing_stops():
    with pytest.raises(GuardError, match="moved no vector"):
        watch.watch_first_movement(0.0)
    watch.watch_first_movement(1e-9)


def test_a_latent_that_is_no_number_stops_and_names_the_picture():
    with pytest.raises(GuardError, match=r"smile\.png"):
        watch.watch_latents("smile.png", False)
    watch.watch_latents("smile.png", True)


def test_a_model_that_was_changed_under_the_trainer_stops():
    with pytest.raises(GuardError, match="The model was swapped"):
        watch.watch_model("The model was swapped.")
    watch.watch_model("")


@pytest.mark.parametrize(("movement", "warned"), [(0.05, False), (0.39, False), (0.41, True), (4.0, True)])
def test_a_step_as_far_as_a_word_is_long_is_too_far(movement, warned):
    found = watch.leaping(movement, WORDS, 0.5)
    assert (found is not None) is warned
    if found:
        assert found.id == "lr-too-high" and found.severity is Severity.WARN and "0.5" in found.problem
    assert watch.leaping(movement, None, 0.5) is None


@pytest.mark.parametrize(
    ("step", "movement", "warned"), [(50, 1e-5, True), (50, 0.01, False), (49, 1e-5, False), (51, 1e-5, False)]
)
def test_vectors_that_hardly_move_are_said_once(step, movement, warned):
    found = watch.hardly_moving(step, movement, WORDS, 1e-8)
    assert (found is not None) is warned and (not found or found.id == "vector-not-moving")
    assert watch.hardly_moving(step, movement, None, 1e-8) is None


@pytest.mark.parametrize(
    ("before", "after", "error", "warned"),
    [(0.10, 0.11, 0.001, True), (0.10, 0.11, 0.01, False), (0.11, 0.10, 0.001, False), (math.nan, 0.1, 0.01, False)],
)
def test_a_training_loss_that_rises_clearly_is_overshoot(before, after, error, warned):
    made = [Validation(step, (), training=loss, training_error=error) for step, loss in ((1, before), (2, after))]
    found = watch.rising(*made)
    assert (found is not None) is warned and (not found or found.id == "lr-too-high")


def test_a_plateau_is_suggested_never_decided():
    found = watch.plateau(verdict("flat"), 0.005)
    assert found.id == "plateau" and found.severity is Severity.INFO
    assert "0.005" in found.problem and "step 250" in found.remedy
    assert watch.plateau(verdict("improving"), 0.005) is None


@pytest.mark.parametrize("state", ["improving", "flat", "overtrained", "broken"])
def test_what_is_past_its_best_is_told_with_the_verdicts_words(state):
    found = watch.worse(verdict(state))
    assert (found is not None) is (state in ("overtrained", "broken"))
    if found:
        assert (found.problem, found.remedy) == ("It is so by 3 standard errors.", "Do this.")
