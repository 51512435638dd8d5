"""Ranks by energy and by size, and what a survey tells of them before anything is written."""

from dataclasses import replace

import pytest
import safetensors.torch
import torch
from PIL import Image

from lib_dsm.errors import InputError
from lib_dsm.extraction.about import About
from lib_dsm.extraction.checkpoint import extract_checkpoint
from lib_dsm.extraction.lora_file import LoraFile
from lib_dsm.extraction.options import ExtractionOptions
from lib_dsm.extraction.survey import survey
from tests.extraction.helpers import OPTIONS, RANK, SAMPLE, TEXT, UNET, extract, low_rank_change


def test_energy_and_size_choose_ranks(base, folder):
    generator = torch.Generator().manual_seed(1)
    keys = [UNET + key for key in SAMPLE if key not in ("input_blocks.0.0.weight", "out.2.weight")]
    tuned = {key: tensor + (0.01 + 0.02 * ("time_embed" in key)) * torch.randn(tensor.shape, generator=generator)
             if key in keys else tensor for key, tensor in base.items()}  # fmt: skip
    report = extract(folder, tuned, replace(OPTIONS, energy=0.8))
    for module in report.modules:
        values = torch.linalg.svdvals((tuned[module.key] - base[module.key]).flatten(1)).double().square()
        kept = values.cumsum(0) / values.sum()
        assert module.kind == "whole" or kept[module.rank - 2] < 0.8 <= kept[module.rank - 1] + 1e-4
    errors = []
    for size in (0.03, 0.06, 0.2):
        report = extract(folder, tuned, replace(OPTIONS, size=size, precision="fp16"))
        assert 0.85 * size * 1e6 < report.path.stat().st_size + 6000 and report.path.stat().st_size <= size * 1e6
        errors.append(report.total_error)
    assert errors == sorted(errors, reverse=True) and errors[0] > 1.1 * errors[2]
    # The same bytes at one rank for all leave more.
    fixed = extract(folder, tuned, replace(OPTIONS, rank=8, conv_rank=8, precision="fp16"))
    chosen = extract(folder, tuned, replace(OPTIONS, size=fixed.path.stat().st_size / 1e6, precision="fp16"))
    assert chosen.total_error < fixed.total_error
    with pytest.raises(InputError, match="too few"):
        extract(folder, tuned, replace(OPTIONS, size=0.001))
    with pytest.raises(InputError, match="Both"):
        extract(folder, tuned, replace(OPTIONS, size=1, energy=0.5))


def test_words_biases_and_the_card_are_within_the_size(base, folder, tmp_path):
    generator = torch.Generator().manual_seed(1)
    table = f"{TEXT}embeddings.token_embedding.weight"
    wide = {**base, table: torch.randn(1000, base[table].shape[1], generator=generator)}
    # Long biases beside weights that a small file has no room for.
    keys = [key for key in base if key.endswith(("emb_layers.1.weight", "in_layers.2.weight"))]
    biases = [key.removesuffix("weight") + "bias" for key in keys]
    tuned = {key: tensor + 0.01 * torch.randn(tensor.shape, generator=generator) if key in keys + biases else tensor
             for key, tensor in wide.items()}  # fmt: skip
    tuned[table] = wide[table].clone()
    tuned[table][320:380] += 1.0
    for name, tensors in (("base", wide), ("tuned", tuned)):
        safetensors.torch.save_file(tensors, tmp_path / f"{name}.safetensors")
    out, options = tmp_path / "out.safetensors", ExtractionOptions(overwrite=True, conv_rank=0)
    picture = About(cover=Image.effect_noise((512, 512), 100))

    def made(size, about=None):
        return extract_checkpoint(
            tmp_path / "base.safetensors", tmp_path / "tuned.safetensors", out, replace(options, size=size), None, about
        )

    with pytest.raises(InputError, match="words") as found:
        made(0.005)
    least = float(str(found.value).split(" take ")[1].split(" MB")[0])
    for size in (least + 0.005, least + 0.05, least + 0.1):
        assert made(size).words and out.stat().st_size <= size * 1e6
        assert out.stat().st_size > size * 1e6 - 25_000  # the room is used
    with pytest.raises(InputError, match="card"):
        made(least + 0.01, picture)
    made(least + 0.4, picture)
    assert out.stat().st_size <= (least + 0.4) * 1e6


def test_the_size_is_told_to_the_byte_or_a_little_above(tmp_path):
    lora = LoraFile()
    for index in range(50):
        lora.add_module(f"lora_unet_{index}", torch.ones(32, 2).half(), torch.ones(2, 9).half(), (32, 9))
    lora.save(tmp_path / "o.safetensors")
    assert 0 <= lora.size() - (tmp_path / "o.safetensors").stat().st_size < 500


def test_a_survey_tells_size_and_error_before_anything_is_written(base, folder):
    generator = torch.Generator().manual_seed(1)
    keys = [UNET + key for key in SAMPLE]
    tuned = {key: tensor + 0.01 * torch.randn(tensor.shape, generator=generator) if key in keys else tensor
             for key, tensor in base.items()}  # fmt: skip
    options = ExtractionOptions(rank=4, conv_rank=4)
    report = extract(folder, tuned, options)
    found = survey(folder / "base.safetensors", folder / "tuned.safetensors", options)
    outlook = found.outlook(options)
    modules = [module for module in report.modules if module.kind == "low rank"]
    lost, whole = (sum((item.norm * share) ** 2 for item, share in pairs)
                   for pairs in ([(m, m.error) for m in modules], [(m, 1) for m in modules]))  # fmt: skip
    assert outlook.error == pytest.approx((lost / whole) ** 0.5, rel=6e-3)
    assert abs(outlook.bytes - report.path.stat().st_size) < 8000
    errors = [item.error for item in found.outlooks(options)]
    assert len(errors) > 3 and errors == sorted(errors, reverse=True)


def test_a_survey_knows_ranks_above_the_highest_and_convolutions_left_out(base, folder):
    generator = torch.Generator().manual_seed(1)
    keys = [UNET + key for key in SAMPLE if key not in ("input_blocks.0.0.weight", "out.2.weight")]
    tuned = {key: tensor + 0.01 * torch.randn(tensor.shape, generator=generator) if key in keys else tensor
             for key, tensor in base.items()}  # fmt: skip
    for options in (ExtractionOptions(rank=24, conv_rank=16, max_rank=4), ExtractionOptions(rank=8, conv_rank=0)):
        report = extract(folder, tuned, options)
        found = survey(folder / "base.safetensors", folder / "tuned.safetensors", options)
        outlook = found.outlook(options)
        assert outlook.error == pytest.approx(report.total_error, rel=0.01)
        assert abs(outlook.bytes - report.path.stat().st_size) < 8000
    # Energy and size go to the highest rank and no further.
    for choice in ({"energy": 1.0}, {"size": 5.0}):
        report = extract(folder, tuned, ExtractionOptions(max_rank=4, **choice))
        assert {module.rank for module in report.modules} == {4}


@pytest.mark.parametrize("choice", [{"rank": 16}, {"energy": 1.0}, {"size": 3.0}])
@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_rounding_is_no_rank(base, folder, choice, precision):
    key = f"{UNET}middle_block.1.proj_in.weight"
    tuned = {**base, key: base[key] + low_rank_change(base[key].shape, 1, size=0.002)}
    options = ExtractionOptions(precision=precision, max_rank=24, **choice)
    report = extract(folder, tuned, options)
    assert [module.rank for module in report.modules] == [RANK] and report.error < 1e-3 and not report.note
    found = survey(folder / "base.safetensors", folder / "tuned.safetensors", options)
    assert list(found.ranks(options).values()) == [RANK]


def test_an_energy_that_the_highest_rank_does_not_reach_is_told(base, folder):
    generator = torch.Generator().manual_seed(1)
    keys = [f"{UNET}time_embed.0.weight", f"{UNET}time_embed.2.weight"]
    tuned = {**base, **{key: base[key] + 0.01 * torch.randn(base[key].shape, generator=generator) for key in keys}}
    report = extract(folder, tuned, replace(OPTIONS, energy=0.9, max_rank=2))
    assert "highest rank of 2 holds less than 90.0% of 2 layers" in report.text()
    assert not extract(folder, tuned, replace(OPTIONS, energy=0.9, max_rank=1024)).note
