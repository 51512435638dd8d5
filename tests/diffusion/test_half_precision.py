"""Half-precision weights: nothing is cast again, attention is PyTorch's own, and gradients point where they should."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.utils._python_dispatch import TorchDispatchMode

from lib_dsm.diffusion.diffusers import DiffusersModel
from lib_dsm.diffusion.sizes import sizes_of
from lib_dsm.host.studio import MICRO, tokenizer_folder
from lib_dsm.networks.hypernetwork_structure import Structure
from lib_dsm.networks.hypernetwork_training import HypernetworkTraining, drawn_start
from lib_dsm.networks.textual_inversion import TextualInversion, initial_vectors
from lib_dsm.training.loop import Callbacks, Commands, Trainer
from lib_dsm.training.run_folder import RunFolder
from tests.diffusion.sd2 import write_sd2
from tests.micro import training_set

HALVES = [torch.bfloat16, torch.float16]
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


class Seen(TorchDispatchMode):
    """The operations that run, and those that convert one of `weights` to another type."""

    def __init__(self, weights: set[int]) -> None:
        super().__init__()
        self.weights = weights
        self.names: set[str] = set()
        self.casts = 0
        self.attended: set[torch.dtype] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        self.names.add(name)
        if name == "_to_copy" and args[0].untyped_storage().data_ptr() in self.weights:
            self.casts += 1
        if "scaled_dot_product" in name:
            self.attended.add(args[0].dtype)
        return func(*args, **(kwargs or {}))


def load(path, dtype, device="cpu") -> DiffusersModel:
    state = load_file(path)
    sizes = sizes_of(path, {key: tuple(tensor.shape) for key, tensor in state.items()})
    return DiffusersModel.from_state(state, sizes, tokenizer_folder(path), torch.device(device), dtype)


@pytest.fixture(scope="module")
def second(tmp_path_factory):
    path = tmp_path_factory.mktemp("sd2") / "second.safetensors"
    write_sd2(path)
    return path


def gradient(model) -> tuple[torch.Tensor, torch.Tensor, Seen]:
    """A prediction, the gradient of its square to four vectors, and what ran."""
    generator = torch.Generator().manual_seed(0)
    vectors = model.token_vectors(model.tokenize("red hair green hat")).requires_grad_()
    noisy = torch.randn(2, 4, 8, 12, generator=generator)
    with Seen({parameter.untyped_storage().data_ptr() for parameter in model.unet.parameters()}) as seen:
        conditioning = model.encode_prompts(["solo, zorgle", "zorgle, smile"], {"zorgle": vectors}, 1)
        predicted = model.predict(noisy, torch.tensor([100, 800]), conditioning)
        target = torch.randn(predicted.shape, generator=generator).to(model.device)
        (1024 * (predicted - target).square().mean()).backward()
    return predicted.detach().cpu(), vectors.grad.cpu() / 1024, seen


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("version", [1, 2])
def test_predictions_and_gradients_are_those_of_full_precision(second, version, dtype, device):
    path = MICRO if version == 1 else second
    whole, expected, _ = gradient(load(path, torch.float32))
    model = load(path, dtype, device)
    half, found, seen = gradient(model)
    assert half.dtype == torch.float32
    assert float((half - whole).norm() / whole.norm()) < 0.03
    likeness = float(torch.nn.functional.cosine_similarity(found.flatten(), expected.flatten(), dim=0))
    # The small model magnifies rounding: on a GPU, TF32 convolutions alone take float32 gradients to 0.993.
    assert likeness > (0.995 if dtype == torch.float16 and device == "cpu" else 0.9)
    assert seen.casts == 0
    assert {parameter.dtype for parameter in model.unet.parameters()} == {dtype} == {model.dtype}
    assert {parameter.dtype for parameter in model.text_encoder.parameters()} == {torch.float32}


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES], ids=str)
def test_attention_is_pytorchs_and_never_written_out(second, dtype):
    *_, seen = gradient(load(MICRO, dtype))
    assert seen.attended == {dtype, torch.float32}  # the text encoder's is in float32
    assert "_softmax" not in seen.names
    model = load(second, dtype)
    *_, seen = gradient(model)
    upcast = dtype == torch.float16
    assert model.attention_upcast is upcast
    assert seen.attended == ({torch.float32} if upcast else {dtype, torch.float32})


def test_convolutions_lie_channels_last():
    weights = [
        module.weight for module in load(MICRO, torch.bfloat16).unet.modules() if isinstance(module, torch.nn.Conv2d)
    ]
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_a_training_on_half_precision_keeps_its_vectors_whole(run_config, tmp_path, dtype, device):
    model = load(MICRO, dtype, device)
    config = run_config(max_steps=2, variable_aspect=False, save_every=0, validate_every=0)
    pictures = training_set(config, model, tmp_path / "latents")
    start = initial_vectors(model, config.init_text, config.vectors)
    network = TextualInversion(config.name, start, model.device)
    reports: list[Any] = []
    listening = Callbacks(reports.append, lambda step: None, lambda step, folder: None, lambda step, path: None)
    commands = Commands(stop=lambda: False, save=lambda: False, preview=lambda: False)
    run = Trainer(config, model, network, pictures, RunFolder(tmp_path / "run"), listening, commands)
    run.resume()
    run.run()
    assert network.vectors.dtype == torch.float32 and torch.isfinite(network.vectors).all()
    assert float((network.vectors.detach().cpu() - start).abs().min()) > 0
    assert all(0 < report.gradient_norm < 10 for report in reports)


def test_a_hypernetwork_on_half_precision_has_the_gradients_of_full_precision():
    found = []
    for kind in (torch.float32, torch.float16):
        model = load(MICRO, kind)
        structure = Structure(tuple(model.context_widths()), activation="relu", dropout=(0, 0.2, 0))
        start = drawn_start(structure, "XavierNormal", 0.01, 0)
        network = HypernetworkTraining("ink", structure, start.weights, model.device)
        generator = torch.Generator().manual_seed(0)
        noisy, noise = (torch.randn(2, 4, 8, 12, generator=generator) for _ in range(2))
        with torch.no_grad():
            conditioning = model.encode_prompts(["solo", "red hair"], {}, 1)
        with network.applied(model), network.training(0, (0, 1)):
            predicted = model.predict(noisy, torch.tensor([100, 800]), conditioning)
            loss = 1024 * (predicted - noise).square().mean()
            gradients = torch.autograd.grad(loss, network.parameters())
        assert all(gradient.dtype == torch.float32 for gradient in gradients)
        found.append(torch.cat([gradient.flatten() / 1024 for gradient in gradients]))
    assert float(torch.nn.functional.cosine_similarity(*found, dim=0)) > 0.99
