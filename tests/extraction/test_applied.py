"""A checkpoint read with a LoRA added to it is the tuned one."""

import pytest
import safetensors.torch
import torch

from lib_dsm.errors import ModelError
from lib_dsm.extraction.applied import Applied
from lib_dsm.extraction.checkpoint import extract_checkpoint
from lib_dsm.extraction.key_map import canonical, layers_of
from lib_dsm.extraction.lora_content import read_lora
from lib_dsm.extraction.lora_file import LoraFile
from lib_dsm.extraction.options import ExtractionOptions
from lib_dsm.host.studio import MICRO
from lib_dsm.networks.tensor_files import open_tensors

RANK = 2
MIDDLE = "model.diffusion_model.middle_block.1.proj_in.weight"


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """The micro checkpoint in float32 and one tuned in every form that a file can carry, with the LoRA between them."""
    folder = tmp_path_factory.mktemp("pair")
    base = {key: tensor.float() for key, tensor in safetensors.torch.load_file(MICRO).items()
            if not key.startswith("first_stage") and "token_embedding" not in key}  # fmt: skip
    tuned = dict(base)
    generator = torch.Generator().manual_seed(4)
    for number, layer in enumerate(layers_of({key: tuple(tensor.shape) for key, tensor in base.items()})):
        if layer.is_norm or layer.is_end:
            tuned[layer.weight] = base[layer.weight] * 1.1
            tuned[layer.bias] = base[layer.bias] + 0.1
        elif layer.bias and number % 4 == 0:
            tuned[layer.bias] = base[layer.bias] + 0.1
        else:
            flat = base[layer.weight].flatten(1).shape
            change = torch.randn(flat[0], RANK, generator=generator) @ torch.randn(RANK, flat[1], generator=generator)
            tuned[layer.weight] = base[layer.weight] + 0.1 * change.reshape(base[layer.weight].shape)
    paths = [folder / f"{name}.safetensors" for name in ("base", "tuned", "lora")]
    safetensors.torch.save_file(base, paths[0])
    safetensors.torch.save_file(tuned, paths[1])
    extract_checkpoint(*paths, ExtractionOptions(rank=RANK, conv_rank=RANK, precision="fp32"))
    return base, tuned, paths


def test_it_reads_as_the_tuned_checkpoint(pair):
    base, tuned, paths = pair
    with open_tensors(paths[0]) as file:
        applied = Applied(file, read_lora(paths[2]))
        assert applied.unmatched == ()
        for key, wanted in tuned.items():
            assert torch.allclose(applied.read(key), wanted, atol=2e-5), key
        # The file itself stays as it is.
        assert torch.equal(file.read(MIDDLE), base[MIDDLE])


def test_half_the_strength_is_half_the_way(pair):
    base, tuned, paths = pair
    with open_tensors(paths[0]) as file:
        read = Applied(file, read_lora(paths[2]), 0.5).read
        for key, wanted in tuned.items():
            assert torch.allclose(read(key), (base[key] + wanted) / 2, atol=2e-5), key


def test_glora_is_the_weight_times_its_two_matrices(pair, tmp_path):
    base, _, paths = pair
    shapes = {key: tuple(tensor.shape) for key, tensor in base.items()}
    name = next(layer.name for layer in layers_of(shapes) if layer.weight == MIDDLE)
    width = base[MIDDLE].shape[1]
    first, second = torch.randn(3, width), torch.randn(width, 3)
    parts = {"a1.weight": first, "a2.weight": second, "b1.weight": torch.zeros(1, 1), "b2.weight": torch.zeros(1, 1)}
    lora = LoraFile({f"{name}.{part}": tensor for part, tensor in parts.items()})
    lora.save(tmp_path / "g.safetensors")
    with open_tensors(paths[0]) as file:
        found = Applied(file, read_lora(tmp_path / "g.safetensors")).read(MIDDLE)
    weight = base[MIDDLE].flatten(1)
    assert torch.allclose(found.flatten(1), weight + weight @ second @ first, atol=1e-4)


def test_bundled_vectors_are_replacements(tmp_path):
    lora = LoraFile()
    lora.add_vectors("zorgle", torch.ones(2, 80))
    lora.save(tmp_path / "e.safetensors")
    with open_tensors(MICRO) as file:
        applied = Applied(file, read_lora(tmp_path / "e.safetensors"))
    assert list(applied.replacements) == ["zorgle"] and applied.replacements["zorgle"].shape == (2, 80)


def test_a_lora_for_another_model_is_refused(pair, tmp_path):
    wide, strange = LoraFile(), LoraFile()
    wide.add_module("lora_unet_mid_block_attentions_0_proj_in", torch.ones(8, 1), torch.ones(1, 8), (8, 8))
    strange.add_module("lora_unet_mid_block_attentions_7_proj_in", torch.ones(8, 1), torch.ones(1, 8), (8, 8))
    for lora, said in ((wide, "mid_block_attentions_0_proj_in is 8×8"), (strange, "None of the LoRA's 1 modules")):
        lora.save(tmp_path / "other.safetensors", replace=True)
        with open_tensors(pair[2][0]) as file, pytest.raises(ModelError, match=said):
            Applied(file, read_lora(tmp_path / "other.safetensors"))


def test_keys_of_older_files_are_found_too(pair, tmp_path):
    base, tuned, paths = pair
    older = {key.replace("transformer.text_model.", "transformer."): tensor for key, tensor in base.items()}
    assert any(canonical(key) != key for key in older)
    safetensors.torch.save_file(older, tmp_path / "older.safetensors")
    with open_tensors(tmp_path / "older.safetensors") as file:
        applied = Applied(file, read_lora(paths[2]))
        for key in older:
            assert torch.allclose(applied.read(key), tuned[canonical(key)], atol=2e-5), key


@pytest.mark.parametrize(
    ("name", "parts", "said"),
    [
        ("mid_block_attentions_0_proj_in", {"diff": (8, 8, 1, 1)}, "8×8×1×1"),
        ("mid_block_attentions_0_proj_in", {"diff": (1,), "diff_b": (5,)}, "is 5 in the LoRA"),
        ("mid_block_attentions_0_norm", {"w_norm": (6,), "b_norm": (6,)}, "is 6 in the LoRA"),
        ("conv_in", {"diff": (7, 4, 3, 3)}, "7×4×3×3"),
        ("mid_block_attentions_0_proj_in",
         {"a1.weight": (3, 8), "a2.weight": (8, 3), "b1.weight": (1, 1), "b2.weight": (1, 1)}, "is 8×8"),
        ("mid_block_attentions_0_proj_in", {"a1.weight": (3, 8), "a2.weight": (8, 3)}, "lacks b1.weight, b2.weight"),
    ],
)  # fmt: skip
def test_no_form_of_another_shape_is_taken(pair, tmp_path, name, parts, said):
    lora = LoraFile({f"lora_unet_{name}.{part}": torch.ones(shape) for part, shape in parts.items()})
    lora.save(tmp_path / "other.safetensors")
    with open_tensors(pair[2][0]) as file, pytest.raises(ModelError, match=said):
        Applied(file, read_lora(tmp_path / "other.safetensors"))
