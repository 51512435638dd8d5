"""Fewer pictures at once, then recomputation, and never another result."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from hypothesis import given
from hypothesis import strategies as st

from lib_dsm.errors import GuardError
from lib_dsm.host.run import train
from lib_dsm.jobs import Job
from lib_dsm.networks.textual_inversion import TextualInversion, initial_vectors
from lib_dsm.training import memory
from lib_dsm.training.loop import Callbacks, Commands, Trainer
from lib_dsm.training.pictures import TrainingSet
from lib_dsm.training.run_folder import RunFolder
from tests.micro import training_set

NEVER = Commands(stop=lambda: False, save=lambda: False, preview=lambda: False)


@pytest.fixture
def model(micro):
    """The demo's model, which must not stay recomputing for others."""
    yield micro
    micro.recompute = False


class Short:
    """A model whose U-Net runs out of memory above so many pictures at once, or wherever nothing is recomputed."""

    def __init__(self, model, pictures: int, recomputing: bool = False):
        self._model, self._pictures, self._recomputing = model, pictures, recomputing
        self.recompute = False
        self.seen: list[tuple[int, bool]] = []

    def __getattr__(self, name):
        return getattr(self._model, name)

    def predict(self, noisy, timesteps, conditioning):
        self.seen.append((len(noisy), self.recompute))
        predicted = self._model.predict(noisy, timesteps, conditioning)
        if len(noisy) > self._pictures or (self._recomputing and not self.recompute):
            # As it mostly happens: the forward pass is through, and the backward pass has begun.
            predicted.register_hook(self._fail)
        return predicted

    def _fail(self, gradient):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def steps_of(config, model, pictures, folder, say=lambda sentence: None):
    """Train, and give the vectors and each step's gradient."""
    network = TextualInversion(config.name, initial_vectors(model, config.init_text, config.vectors), model.device)
    gradients = []
    quiet = Callbacks(lambda report: None, lambda step: None, lambda step, folder: None, lambda step, path: None)
    parts = memory.MicroBatches(model, config.batch_size, config.recompute != "never", say)
    run = Trainer(config, model, network, pictures, RunFolder(folder), quiet, NEVER, parts)
    run.optimizer.register_step_pre_hook(lambda *_: gradients.append(network.vectors.grad.clone()))
    run.resume()
    run.run()
    return network.state()["vectors"], gradients


@pytest.fixture
def pictures(run_config, micro, tmp_path):
    # Of one size, so that a step is one batch.
    return training_set(run_config(variable_aspect=False), micro, tmp_path / "latents")


def test_recomputation_changes_no_bit(run_config, studio):
    results = {}
    for choice in ("never", "always"):
        job = Job("test")
        run = train(studio, run_config(recompute=choice, max_steps=2, overwrite=True), job)
        results[choice] = run.files[0].read_bytes()
        assert any("computed again" in sentence for sentence in job.snapshot()["lines"]) is (choice == "always")
    assert results["never"] == results["always"]


def test_recomputation_keeps_less_and_computes_more(model):
    kept, calls = {}, {}
    convolutions = [module for module in model.unet.modules() if isinstance(module, torch.nn.Conv2d)]
    blocks = [block for block in model.unet.modules() if isinstance(block, (ResnetBlock2D, BasicTransformerBlock))]
    for recompute in (False, True):
        model.recompute, calls[recompute] = recompute, 0

        def count(*_, recompute=recompute):
            calls[recompute] += 1

        handles = [module.register_forward_hook(count) for module in convolutions]
        kept[recompute] = memory._kept_bytes(model, 8)
        conditioning = torch.zeros(1, 77, model.hidden_size, requires_grad=True)
        model.predict(torch.zeros(1, 4, 8, 8), torch.tensor([5]), conditioning).sum().backward()
        for handle in handles:
            handle.remove()
    assert kept[True] < 0.5 * kept[False]
    assert calls[False] < calls[True]
    model.recompute = False
    assert blocks and not any("forward" in vars(block) for block in blocks)


def test_a_batch_that_does_not_fit_is_halved_and_the_sum_stays(run_config, model, pictures, tmp_path):
    config = run_config(max_steps=2, batch_size=4)
    said = []
    short = Short(model, pictures=1)
    vectors, gradients = steps_of(config, short, pictures, tmp_path / "short", said.append)
    whole, expected = steps_of(config, model, pictures, tmp_path / "whole")
    assert {count for count, _ in short.seen[3:]} == {1} and not short.recompute
    assert len(said) == 2 and "4 pictures" in said[0] and "2 pictures" in said[1]
    for one, other in zip(gradients, expected, strict=True):
        assert (one - other).norm() < 1e-2 * other.norm()
    assert torch.allclose(vectors, whole, atol=1e-4)


def test_a_prompt_is_not_longer_for_its_neighbours(run_config, model, pictures, tmp_path):
    """A long caption among short ones: however the batch is cut, the gradient is the sum of each picture's own."""
    tags = tuple(f"red hair {count}" for count in range(30))
    long = dataclasses.replace(pictures.pictures[0], tags=tags)
    mixed = TrainingSet((long, *pictures.pictures[1:4]))
    seen = []

    class Listening(Short):
        def predict(self, noisy, timesteps, conditioning):
            seen.append((len(noisy), conditioning.shape[1] // 77))
            return super().predict(noisy, timesteps, conditioning)

    config = run_config(max_steps=1, batch_size=4)
    vectors, gradients = steps_of(config, Listening(model, 4), mixed, tmp_path / "whole")
    chunks = model.chunk_counts([", ".join(tags)], {})[0]
    assert chunks > 1 and sorted(seen) == [(1, chunks), (3, 1)]
    alone, expected = steps_of(run_config(max_steps=1, batch_size=1, gradient_accumulation=4), model, mixed, tmp_path)
    assert (gradients[0] - expected[0]).norm() < 1e-3 * expected[0].norm()
    assert torch.allclose(vectors, alone, atol=1e-4)


def test_then_activations_are_recomputed(run_config, model, pictures, tmp_path):
    config = run_config(max_steps=1, batch_size=2)
    said = []
    short = Short(model, pictures=1, recomputing=True)
    _, gradients = steps_of(config, short, pictures, tmp_path / "short", said.append)
    assert short.seen == [(2, False), (1, False), (1, True), (1, True)]
    assert "computed again" in said[-1]
    _, expected = steps_of(config, model, pictures, tmp_path / "whole")
    assert (gradients[0] - expected[0]).norm() < 1e-2 * expected[0].norm()


@pytest.mark.parametrize(("recompute", "remedy"), [("auto", "smaller"), ("never", 'recompute to "auto"')])
def test_at_last_a_sentence_says_so_and_no_step_is_lost(run_config, model, pictures, tmp_path, recompute, remedy):
    class FailsLater(Short):
        def predict(self, *arguments):
            self._pictures = 0 if len(self.seen) >= 4 else 2
            return super().predict(*arguments)

    config = run_config(max_steps=5, batch_size=2, save_every=0, recompute=recompute)
    with pytest.raises(GuardError, match="not enough memory") as refused:
        steps_of(config, FailsLater(model, 2), pictures, tmp_path / "run")
    assert remedy in refused.value.remedy
    assert RunFolder(tmp_path / "run").saved_steps() == [4]


def test_other_errors_are_not_taken_for_it(model):
    parts = memory.MicroBatches(model, 4)

    def fail(part):
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        parts.each([1, 2], fail)
    assert parts.at_once == 4
    for text in (
        "CUDA error: out of memory",
        "DefaultCPUAllocator: can't allocate memory",
        "CUDNN_STATUS_ALLOC_FAILED",
    ):
        assert memory.is_out_of_memory(RuntimeError(text))


@given(st.integers(0, 40), st.integers(1, 12), st.integers(1, 12))
def test_parts_cover_a_batch_in_order_whatever_fits(count, at_once, fitting):
    parts = memory.MicroBatches(Fits(), at_once, may_recompute=False)
    done: list[int] = []

    def compute(part):
        if len(part) > fitting:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        done.extend(part)
        return len(part)

    results = parts.each(range(count), compute)
    assert done == list(range(count)) and sum(results) == count
    assert max(results, default=0) <= min(at_once, fitting)


class Fits:
    """All that `MicroBatches` asks of a model."""

    device = torch.device("cpu")
    recompute = False


def test_the_cost_grows_with_the_pixels_and_is_what_is_kept(model):
    cost = memory.measure(model)
    for side in (16, 32):
        weights = memory._kept_bytes(model, 8) - cost.linear * 64 - cost.quadratic * 64**2
        expected = memory._kept_bytes(model, side) - weights
        assert abs(cost.bytes((8 * side, 8 * side), 1) / memory._BACKWARD / expected - 1) < 0.02
    assert cost.bytes((64, 128), 3) == pytest.approx(3 * cost.bytes((128, 64), 1), abs=3)


@pytest.mark.parametrize(
    ("fitting", "may_split", "chosen"),
    [(5, False, (4, False)), (3, False, (4, True)), (4, True, (4, False)), (3, True, (3, False)), (0, True, (4, True))],
)
def test_free_memory_decides(fitting, may_split, chosen):
    cost, size = memory.Cost(linear=1e6, quadratic=100.0), (512, 768)
    free = fitting * cost.bytes(size, 1) + memory._SPARE
    assert memory.choose(cost, size, 4, free, may_split) == chosen


@pytest.mark.parametrize(
    ("free", "recompute", "said"), [(1 << 40, False, "nothing is computed twice"), (0, True, "again")]
)
def test_the_choice_is_said_with_its_reasons(run_config, model, free, recompute, said):
    sentences: list[str] = []
    parts = memory.plan(run_config(batch_size=4), model, {(64, 64), (96, 64)}, sentences.append, lambda device: free)
    assert (parts.at_once, model.recompute) == (4, recompute)
    assert len(sentences) == 1 and said in sentences[0]
    assert "4 pictures of up to 96×64" in sentences[0] and "B are free" in sentences[0]


def test_the_settings_can_force_either(run_config, model):
    for choice in ("always", "never"):
        said: list[str] = []
        memory.plan(run_config(recompute=choice), model, {(96, 64)}, said.append, lambda device: 0)
        assert model.recompute is (choice == "always")
        assert bool(said) is (choice == "always")


def test_free_memory_of_the_processor_is_a_plausible_number():
    assert 10_000_000 < memory.free_bytes(torch.device("cpu")) < 1 << 50
