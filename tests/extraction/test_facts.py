"""What the page's charts are drawn of agrees with the reports."""

import json

import pytest
import safetensors.torch
import torch

from lib_dsm.extraction.checkpoint import extract_checkpoint
from lib_dsm.extraction.edit_lora import edit_lora
from lib_dsm.extraction.facts import SPECTRA, of_edit, of_report, of_survey
from lib_dsm.extraction.options import EditOptions, ExtractionOptions
from lib_dsm.extraction.survey import survey
from lib_dsm.host.studio import MICRO

OPTIONS = ExtractionOptions(rank=4, conv_rank=2)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """The micro checkpoint, and one with every matrix of the U-Net's changed."""
    folder = tmp_path_factory.mktemp("pair")
    tensors = {key: tensor.float() for key, tensor in safetensors.torch.load_file(MICRO).items()}
    generator = torch.Generator().manual_seed(1)
    for key, tensor in tensors.items():
        if key.startswith("model.diffusion_model") and tensor.dim() in (2, 4):
            tensors[key] = tensor + 0.1 * tensor.std() * torch.randn(tensor.shape, generator=generator)
    safetensors.torch.save_file(tensors, folder / "tuned.safetensors")
    return MICRO, folder / "tuned.safetensors", folder


def test_of_a_report(pair):
    report = extract_checkpoint(*pair[:2], pair[2] / "out.safetensors", OPTIONS)
    facts = of_report(report)
    assert json.loads(json.dumps(facts)) == facts
    assert facts["bytes"] == (pair[2] / "out.safetensors").stat().st_size
    assert len(facts["layers"]) == len(report.modules) and facts["error"] == report.error
    assert len(facts["spectra"]) == SPECTRA
    for item in facts["spectra"]:
        layer = next(module for module in report.modules if module.name == item["name"])
        assert item["rank"] == layer.rank and item["values"] == [layer.values[place - 1] for place in item["places"]]
        # What the rank leaves follows from the values.
        kept = sum(value**2 for value in layer.values[: layer.rank])
        assert item["error"] == pytest.approx((1 - kept / layer.norm**2) ** 0.5, rel=2e-3)
    assert min(item["norm"] for item in facts["spectra"]) >= sorted(m.norm for m in report.modules if m.rank)[-SPECTRA]


def test_of_a_survey_is_what_an_extraction_gives(pair):
    found = survey(*pair[:2], OPTIONS)
    facts = of_survey(found, found.outlooks(OPTIONS), found.outlook(OPTIONS), found.ranks(OPTIONS))
    assert json.loads(json.dumps(facts)) == facts
    report = extract_checkpoint(*pair[:2], pair[2] / "out.safetensors", ExtractionOptions(4, 2, overwrite=True))
    made = {layer["name"]: layer for layer in of_report(report)["layers"]}
    for layer in facts["layers"]:
        if made[layer["name"]]["kind"] == "low rank":  # a layer whose rank is no saving is stored whole
            assert layer["rank"] == made[layer["name"]]["rank"]
            assert layer["error"] == pytest.approx(made[layer["name"]]["error"], rel=5e-3)
    assert (facts["chosen"]["rank"], facts["chosen"]["conv_rank"]) == (4, 2)
    errors = [item["error"] for item in facts["outlooks"]]
    assert errors == sorted(errors, reverse=True) and len({item["rank"] for item in facts["outlooks"]}) == len(errors)
    assert found.outlook(ExtractionOptions(size=1.0)).rank == 0


def test_of_an_edit(pair):
    source = pair[2] / "whole.safetensors"
    extract_checkpoint(*pair[:2], source, ExtractionOptions(8, 4))
    report = edit_lora([(source, 1.0)], pair[2] / "small.safetensors", EditOptions(rank=2))
    facts = of_edit(report)
    assert {layer["name"]: layer["error"] for layer in facts["layers"]} == report.errors
    assert 0 < facts["error"] < 1 and facts["bytes"] < source.stat().st_size
