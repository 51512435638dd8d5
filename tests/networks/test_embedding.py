import base64
import json
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from lib_dsm.errors import InputError, ModelError
from lib_dsm.networks.embedding import Embedding, load_embedding, save_png, save_pt, save_safetensors


def embedding(vectors=None, **facts):
    if vectors is None:
        vectors = torch.randn(4, 80, generator=torch.Generator().manual_seed(3))
    known = {"step": 500, "checkpoint_name": "micro", "checkpoint_hash": "0123456789abcdef", "clip_skip": 2}
    return Embedding("asuka", vectors, **{**known, **facts})


def save(what, folder, form):
    path = folder / f"asuka.{form}"
    if form == "png":
        save_png(what, Image.new("RGB", (8, 8), "red"), path)
    else:
        {"pt": save_pt, "safetensors": save_safetensors}[form](what, path)
    return path


FORMS = ("pt", "safetensors", "png")


@pytest.mark.parametrize("form", FORMS)
def test_everything_comes_back(tmp_path, form):
    found = load_embedding(save(embedding(), tmp_path, form))
    assert (found.name, found.step, found.checkpoint_name) == ("asuka", 500, "micro")
    assert (found.checkpoint_hash, found.clip_skip) == ("0123456789", 2)
    assert torch.equal(found.vectors, embedding().vectors) and found.vectors.dtype == torch.float32


@pytest.mark.parametrize("form", FORMS)
def test_what_is_unknown_stays_unknown(tmp_path, form):
    found = load_embedding(save(Embedding("asuka", torch.ones(1, 5)), tmp_path, form))
    assert (found.step, found.checkpoint_name, found.checkpoint_hash, found.clip_skip) == (None, "", "", None)


numbers = st.floats(width=32, allow_nan=False, allow_infinity=False)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=arrays(np.float32, array_shapes(min_dims=2, max_dims=2, max_side=6), elements=numbers))
def test_from_pt_to_safetensors_to_png_to_pt_keeps_every_bit(tmp_path, values):
    first = embedding(torch.from_numpy(values))
    now = first
    for form in ("pt", "safetensors", "png", "pt"):
        now = load_embedding(save(now, tmp_path, form))
    assert now.vectors.numpy().tobytes() == values.tobytes()
    whole = (tmp_path / "asuka.pt").read_bytes()
    assert save(first, tmp_path, "pt").read_bytes() == whole


@pytest.mark.parametrize("form", FORMS)
def test_equal_embeddings_give_equal_bytes(tmp_path, form):
    (tmp_path / "2").mkdir()
    # A view into a larger tensor, and text that is equal but not the same object.
    view = torch.cat([torch.zeros(2, 80), embedding().vectors])[2:]
    other = embedding(view, checkpoint_name="".join(["mi", "cro"]))
    assert save(embedding(), tmp_path, form).read_bytes() == save(other, tmp_path / "2", form).read_bytes()


def test_the_pt_is_what_the_webui_expects(tmp_path):
    path = save(embedding(), tmp_path, "pt")
    content = torch.load(path, weights_only=True)
    assert content["string_to_token"] == {"*": 265}
    assert list(content["string_to_param"]) == ["*"]
    assert torch.equal(content["string_to_param"]["*"], embedding().vectors)
    assert (content["name"], content["step"]) == ("asuka", 500)
    assert (content["sd_checkpoint"], content["sd_checkpoint_name"]) == ("0123456789", "micro")


def test_a_view_does_not_drag_its_storage_into_the_file(tmp_path):
    save_pt(embedding(torch.zeros(100_000, 80)[:2]), tmp_path / "a.pt")
    assert (tmp_path / "a.pt").stat().st_size < 10_000


def test_the_safetensors_has_one_tensor(tmp_path):
    assert list(safetensors.torch.load_file(save(embedding(), tmp_path, "safetensors"))) == ["emb_params"]


def test_the_png_holds_json_in_base64_and_its_own_name(tmp_path):
    path = save(embedding(), tmp_path, "png").rename(tmp_path / "other.png")
    with Image.open(path) as picture:
        assert picture.getpixel((0, 0)) == (255, 0, 0)
        content = json.loads(base64.b64decode(picture.text["sd-ti-embedding"]))
    # The WebUI's decoder: an array of doubles, cast to float32.
    array = np.array(content["string_to_param"]["*"]["TORCHTENSOR"])
    assert np.array_equal(array.astype(np.float32), embedding().vectors.numpy())
    assert load_embedding(path).name == "asuka"
    assert load_embedding(save(embedding(), tmp_path, "pt").rename(tmp_path / "new.pt")).name == "new"


def test_seventy_five_wide_vectors_fit_into_a_png(tmp_path):
    large = embedding(torch.randn(75, 768, generator=torch.Generator().manual_seed(1)))
    assert torch.equal(load_embedding(save(large, tmp_path, "png")).vectors, large.vectors)


@pytest.mark.parametrize("mode", ["P", "CMYK", "RGBA", "L", "1", "I;16"])
def test_a_preview_of_any_mode_can_carry_it(tmp_path, mode):
    save_png(embedding(), Image.new(mode, (8, 8)), tmp_path / "a.png")
    assert torch.equal(load_embedding(tmp_path / "a.png").vectors, embedding().vectors)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_broken_numbers_are_refused_and_the_old_file_stays(tmp_path, form, value):
    old = save(embedding(), tmp_path, form).read_bytes()
    vectors = embedding().vectors.clone()
    vectors[1, 3] = value
    with pytest.raises(ModelError, match="1 of the 4 vectors"):
        save(embedding(vectors), tmp_path, form)
    assert (tmp_path / f"asuka.{form}").read_bytes() == old


def test_reads_what_others_write(tmp_path):
    vectors = torch.randn(2, 8).half()
    torch.save({"<cat>": vectors[0]}, tmp_path / "learned_embeds.bin")
    assert torch.equal(load_embedding(tmp_path / "learned_embeds.bin").vectors, vectors[:1].float())
    module = torch.nn.ParameterDict({"*": torch.nn.Parameter(vectors.float())})
    old = {"string_to_token": {"*": torch.tensor(265)}, "string_to_param": module}
    torch.save(old, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert torch.equal(load_embedding(tmp_path / "old.pt").vectors, vectors.float())
    safetensors.torch.save_file({"emb_params": vectors}, tmp_path / "a.safetensors")
    assert torch.equal(load_embedding(tmp_path / "a.safetensors").vectors, vectors.float())


def test_what_is_no_embedding_is_said(tmp_path):
    def refused(name, match):
        with pytest.raises(ModelError, match=match) as error:
            load_embedding(tmp_path / name)
        assert name in str(error.value)

    Image.new("RGB", (8, 8)).save(tmp_path / "plain.png")
    refused("plain.png", "without an embedding")
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.jpg")
    refused("photo.jpg", "JPEG")
    safetensors.torch.save_file({"clip_l": torch.ones(1, 4), "clip_g": torch.ones(1, 8)}, tmp_path / "xl.safetensors")
    refused("xl.safetensors", "SDXL")
    safetensors.torch.save_file({str(n): torch.ones(1) for n in range(9)}, tmp_path / "big.safetensors")
    refused("big.safetensors", "9 tensors")
    torch.save({"string_to_param": {"a": torch.ones(1, 4), "b": torch.ones(1, 4)}}, tmp_path / "two.pt")
    refused("two.pt", "string_to_param")
    torch.save([1, 2], tmp_path / "list.pt")
    refused("list.pt", "list")
    torch.save({"string_to_param": {"*": torch.ones(2, 2, 2)}}, tmp_path / "cube.pt")
    refused("cube.pt", r"\(2, 2, 2\)")
    torch.save({"string_to_param": {"*": torch.full((2, 2), float("nan"))}}, tmp_path / "nan.pt")
    refused("nan.pt", "NaN")
    with zipfile.ZipFile(tmp_path / "zip.pt", "w") as archive:
        archive.writestr("a", "b")
    refused("zip.pt", "zip")
    with pytest.raises(InputError):
        load_embedding(tmp_path / "none.pt")


def test_a_damaged_png_is_refused(tmp_path):
    whole = save(embedding(), tmp_path, "png").read_bytes()
    for size in range(8, len(whole) - 12, len(whole) // 20):
        (tmp_path / "cut.png").write_bytes(whole[:size])
        with pytest.raises(ModelError):
            load_embedding(tmp_path / "cut.png")
    for text in ("no base64!", base64.b64encode(b"[1, 2").decode(), base64.b64encode(b"[" * 100_000).decode()):
        from PIL.PngImagePlugin import PngInfo

        chunks = PngInfo()
        chunks.add_text("sd-ti-embedding", text)
        Image.new("RGB", (8, 8)).save(tmp_path / "bad.png", pnginfo=chunks)
        with pytest.raises(ModelError):
            load_embedding(tmp_path / "bad.png")
