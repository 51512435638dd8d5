"""Pictures of base, original and LoRA side by side, drawn by real models of the demo world."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from lib_dsm.errors import Cancelled, InputError
from lib_dsm.extraction.checkpoint import extract_checkpoint
from lib_dsm.extraction.lora_file import LoraFile
from lib_dsm.extraction.options import ExtractionOptions, PictureOptions
from lib_dsm.host.lora_pictures import Compared, compare_pictures, prompts_from, text_of, variants
from lib_dsm.host.studio import MICRO
from lib_dsm.jobs import Job

OPTIONS = PictureOptions(previews=2, preview_steps=3, preview_cfg=2.0)
PROMPTS = ["solo, red hair, smile"]


def draw(what, *given):
    return compare_pictures(variants(what), what, *given)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A checkpoint whose cross-attention was changed by a low rank, without a yaml of its own, and the LoRA of it."""
    folder = tmp_path_factory.mktemp("tuned")
    tensors = {key: tensor.float() for key, tensor in load_file(MICRO).items()}
    generator = torch.Generator().manual_seed(1)
    for key, tensor in tensors.items():
        if key.endswith(("attn2.to_v.weight", "attn2.to_k.weight")):
            change = torch.randn(len(tensor), 2, generator=generator) @ torch.randn(
                2, len(tensor.T), generator=generator
            )
            tensors[key] = tensor + 0.3 * tensor.std() * change
    path, out = folder / "tuned.safetensors", folder / "made.safetensors"
    save_file(tensors, path)
    extract_checkpoint(MICRO, path, out, ExtractionOptions(rank=2, conv_rank=2, precision="fp32"))
    return path, out


def test_base_tuned_and_lora_lie_side_by_side(tuned):
    path, out = tuned
    job = Job("draw")
    drawn = draw(Compared(MICRO, out, path), OPTIONS, PROMPTS, job)
    assert drawn["columns"] == ["base", "fine-tuned", "base + LoRA"]
    assert drawn["rows"] == [{"prompt": PROMPTS[0], "seed": 1}, {"prompt": PROMPTS[0], "seed": 2}]
    assert drawn["apart"] > 2 and drawn["left"] < 0.1 * drawn["apart"]
    assert (job.done, job.total) == (6, 6)
    with Image.open(drawn["sheet"]) as sheet:
        assert drawn["sheet"] == str(out.with_name("made-compared.png"))
        cut = [[sheet.crop((left, top, left + width, top + height)).tobytes() for left, top, width, height in row]
               for row in drawn["boxes"]]  # fmt: skip
    assert len({picture for row in cut for picture in row[:2]}) == 4  # every seed and model draws its own
    with Image.open(out.with_suffix(".png")) as card:  # the first picture with the LoRA is the card's
        assert card.size == (64, 64) and card.resize((192, 192), Image.Resampling.NEAREST).tobytes() == cut[0][2]
    assert str(drawn["sheet"]) in text_of(drawn) and "grey levels" in text_of(drawn)


def test_a_card_that_is_there_stays(tuned, tmp_path):
    _, out = tuned
    mine = tmp_path / "mine.safetensors"
    mine.write_bytes(out.read_bytes())
    mine.with_suffix(".png").write_bytes(b"my own")
    one = PictureOptions(previews=1, preview_steps=1, preview_side=64)
    drawn = draw(Compared(MICRO, mine), one, [""], Job("draw"), tmp_path / "else.png")
    assert drawn["columns"] == ["base", "base + LoRA"] and "apart" not in drawn
    assert mine.with_suffix(".png").read_bytes() == b"my own" and (tmp_path / "else.png").is_file()


def test_bundled_vectors_are_drawn_by_their_word(tmp_path):
    lora = LoraFile()
    lora.add_vectors("zorgle", torch.randn(2, 80, generator=torch.Generator().manual_seed(1)))
    lora.save(tmp_path / "e.safetensors")
    one = PictureOptions(previews=1, preview_steps=2, preview_cfg=3.0)
    pictures = []
    for prompt in ("solo", "solo, zorgle"):
        drawn = draw(Compared(MICRO, tmp_path / "e.safetensors"), one, [prompt], Job("draw"))
        with Image.open(drawn["sheet"]) as sheet:
            pictures.append([sheet.crop((x, y, x + w, y + h)).tobytes() for x, y, w, h in drawn["boxes"][0]])
    assert pictures[0][0] == pictures[0][1] and pictures[1][0] != pictures[1][1]


def test_it_can_be_cancelled_and_needs_a_prompt(tuned):
    path, out = tuned
    job = Job("draw")
    job.cancel()
    with pytest.raises(Cancelled):
        draw(Compared(MICRO, out, path), OPTIONS, PROMPTS, job)
    with pytest.raises(InputError, match="no prompt"):
        draw(Compared(MICRO, out, path), OPTIONS, [], Job("draw"))


def test_prompts_are_captions_spread_over_the_folder(tmp_path):
    assert prompts_from(None, 3) == prompts_from(tmp_path, 3) == [""]
    for number in range(9):
        (tmp_path / f"{number}.txt").write_text(f"caption {number}\n", encoding="utf-8")
    assert prompts_from(tmp_path, 3) == ["caption 0", "caption 3", "caption 6"]
