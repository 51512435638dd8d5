import base64
import hashlib
import io
import json

import pytest
import safetensors
import safetensors.torch
import torch
from PIL import Image

from lib_dsm.errors import InputError, ModelError
from lib_dsm.extraction.about import About
from lib_dsm.extraction.embedding_lora import embedding_to_lora
from lib_dsm.extraction.lora_file import LoraFile, base_metadata
from lib_dsm.networks.embedding import Embedding, save_png, save_pt, save_safetensors
from lib_dsm.networks.inspect import describe

VECTORS = torch.randn(4, 768, generator=torch.Generator().manual_seed(1))


def saved(folder, name="asuka", vectors=VECTORS, form="pt"):
    path = folder / f"{name}.{form}"
    embedding = Embedding(name, vectors, 500, "nai", "0123456789", 2)
    if form == "png":
        save_png(embedding, Image.new("RGB", (8, 8)), path)
    else:
        {"pt": save_pt, "safetensors": save_safetensors}[form](embedding, path)
    return path


def metadata(path):
    with safetensors.safe_open(str(path), "pt") as file:
        return file.metadata()


@pytest.mark.parametrize("form", ["pt", "safetensors", "png"])
def test_the_vectors_are_bundled_bit_for_bit_under_the_name(tmp_path, form):
    out = tmp_path / "asuka-lora.safetensors"
    result = embedding_to_lora(saved(tmp_path, form=form), out)
    assert (result.name, result.vectors, result.prompt) == ("asuka", 4, "<lora:asuka-lora:1> asuka")
    tensors = safetensors.torch.load_file(out)
    assert list(tensors) == ["bundle_emb.asuka.string_to_param.*"]
    # The way the WebUI's loader cuts the key.
    first, _, rest = next(iter(tensors)).partition(".")
    name, term = rest.split(".", 1)
    assert (first, name, term.split(".", 1)) == ("bundle_emb", "asuka", ["string_to_param", "*"])
    assert torch.equal(tensors["bundle_emb.asuka.string_to_param.*"], VECTORS)
    assert describe(out)["embeddings"] == ["asuka"]


def test_the_metadata_name_the_file_the_model_and_its_hash(tmp_path):
    out = tmp_path / "x.safetensors"
    embedding_to_lora(saved(tmp_path), out)
    found = metadata(out)
    assert (found["ss_output_name"], found["ss_base_model_version"], found["ss_v2"]) == ("x", "sd_v1", "False")
    assert (found["ss_sd_model_name"], found["ss_clip_skip"]) == ("nai", "2")
    content = out.read_bytes()
    data = content[8 + int.from_bytes(content[:8], "little") :]
    assert found["sshs_model_hash"] == hashlib.sha256(data).hexdigest()


def test_a_sidecar_puts_the_word_into_the_prompt_and_is_never_replaced(tmp_path):
    out = tmp_path / "v1.5 x.safetensors"
    embedding_to_lora(saved(tmp_path), out)
    sidecar = tmp_path / "v1.5 x.json"
    assert json.loads(sidecar.read_text()) == {"sd version": "SD1", "activation text": "asuka"}
    sidecar.write_text('{"notes": "mine"}')
    embedding_to_lora(saved(tmp_path), out, overwrite=True)
    assert json.loads(sidecar.read_text()) == {"notes": "mine"}


def test_a_cover_becomes_a_small_picture_in_the_metadata(tmp_path):
    out = tmp_path / "x.safetensors"
    embedding_to_lora(saved(tmp_path), out, cover=Image.new("RGBA", (2000, 1000), (255, 0, 0, 255)))
    pictures = json.loads(metadata(out)["ssmd_cover_images"])
    with Image.open(io.BytesIO(base64.b64decode(pictures[0]))) as picture:
        assert picture.size == (512, 256)


def test_another_name_and_sd2(tmp_path):
    out = tmp_path / "x.safetensors"
    assert embedding_to_lora(saved(tmp_path, "v1.5"), out, name="rei").name == "rei"
    embedding_to_lora(saved(tmp_path, vectors=torch.ones(2, 1024)), out, overwrite=True)
    assert metadata(out)["ss_v2"] == "True"


def saved_for_sdxl(folder, name="mai", first=2, second=2):
    generator = torch.Generator().manual_seed(5)
    tensors = {"clip_l": torch.randn(first, 768, generator=generator)}
    tensors["clip_g"] = torch.randn(second, 1280, generator=generator)
    safetensors.torch.save_file(tensors, folder / f"{name}.safetensors")
    return folder / f"{name}.safetensors", tensors


def test_both_halves_of_one_for_sdxl_are_bundled(tmp_path):
    source, before = saved_for_sdxl(tmp_path)
    out = tmp_path / "x.safetensors"
    result = embedding_to_lora(source, out)
    assert (result.name, result.vectors, result.prompt) == ("mai", 2, "<lora:x:1> mai")
    tensors = safetensors.torch.load_file(out)
    assert sorted(tensors) == ["bundle_emb.mai.clip_g", "bundle_emb.mai.clip_l"]  # as the WebUI's loader takes them
    assert all(torch.equal(tensors[f"bundle_emb.mai.{key}"], tensor) for key, tensor in before.items())
    assert metadata(out)["ss_base_model_version"] == "sdxl_base_v1-0"
    assert json.loads((tmp_path / "x.json").read_text())["sd version"] == "SDXL"
    with pytest.raises(ModelError, match="2 vectors for one text encoder of SDXL and 3"):
        embedding_to_lora(saved_for_sdxl(tmp_path, "odd", second=3)[0], tmp_path / "y.safetensors")


def test_an_embedding_for_sdxl_goes_with_no_lora_for_sd1(tmp_path):
    lora = LoraFile(metadata=base_metadata("nai", "SD1"))
    lora.add_module("lora_unet_x", torch.ones(3, 1), torch.ones(1, 4), (3, 4))
    with pytest.raises(ModelError, match=r'"mai".*SDXL.*SD1'):
        About(embeddings=(saved_for_sdxl(tmp_path)[0],)).add_to(lora)
    own = LoraFile(metadata=base_metadata("xl", "SDXL"))
    own.add_module("lora_unet_x", torch.ones(3, 1), torch.ones(1, 4), (3, 4))
    About(embeddings=(tmp_path / "mai.safetensors",)).add_to(own)
    assert {"bundle_emb.mai.clip_l", "bundle_emb.mai.clip_g"} < own.tensors.keys()


def test_what_cannot_work_is_refused(tmp_path):
    out = tmp_path / "x.safetensors"
    with pytest.raises(InputError, match=r"v1\.5.*without a dot"):
        embedding_to_lora(saved(tmp_path, "v1.5"), out)
    with pytest.raises(ModelError, match="SDXL"):
        embedding_to_lora(saved(tmp_path, vectors=torch.ones(2, 1280)), out)
    with pytest.raises(InputError):
        embedding_to_lora(tmp_path / "none.pt", out)
    with pytest.raises(InputError, match="itself"):
        source = saved(tmp_path, form="safetensors")
        embedding_to_lora(source, source, overwrite=True)
    assert not out.exists()
    out.write_bytes(b"mine")
    with pytest.raises(InputError, match="exists"):
        embedding_to_lora(saved(tmp_path), out)
    assert out.read_bytes() == b"mine"
