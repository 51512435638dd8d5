import pytest
import torch

from lib_dsm.errors import InputError, ModelError
from lib_dsm.extraction.about import About
from lib_dsm.extraction.lora_file import LoraFile, base_metadata
from lib_dsm.networks.embedding import Embedding, save_pt


def saved(folder, name, width=768, value=1.0):
    folder.mkdir(exist_ok=True)
    save_pt(Embedding(name, torch.full((2, width), value)), folder / f"{name}.pt")
    return folder / f"{name}.pt"


def test_embeddings_of_another_family_are_refused(tmp_path):
    one, two, other = saved(tmp_path, "one"), saved(tmp_path, "two", 1024), saved(tmp_path, "micro", 80)
    for family, path in (("SD1", one), ("SD2", two), ("SD1", other)):
        lora = LoraFile(metadata=base_metadata("", family))
        About(embeddings=(path,)).add_to(lora)
        assert list(lora.tensors) == [f"bundle_emb.{path.stem}.string_to_param.*"]
    for family, path, said in (
        ("SD1", two, "for SD2.*LoRA is for SD1"), ("SD2", one, "SD1"), ("SDXL", one, "SDXL"),
        ("SDXL", other, "two"),
    ):  # fmt: skip
        with pytest.raises(ModelError, match=said):
            About(embeddings=(path,)).add_to(LoraFile(metadata=base_metadata("", family)))


def test_no_embedding_takes_the_place_of_another(tmp_path):
    lora = LoraFile(metadata=base_metadata("", "SD1"))
    lora.add_vectors("one", torch.ones(2, 768))
    About(embeddings=(saved(tmp_path, "one"),)).add_to(lora)  # the same
    with pytest.raises(InputError, match='other vectors for "one"'):
        About(embeddings=(saved(tmp_path / "b", "one", value=2.0),)).add_to(lora)
    assert torch.equal(lora.tensors["bundle_emb.one.string_to_param.*"], torch.ones(2, 768))
    with pytest.raises(InputError, match='Two embeddings are called "one"'):
        _ = About(embeddings=(tmp_path / "one.pt", tmp_path / "b" / "one.pt")).loaded


def test_the_report_names_them(tmp_path):
    about = About(embeddings=(saved(tmp_path, "one"), saved(tmp_path, "two")))
    assert about.told("Done.") == "Done.\nBundled embeddings: one, two."
    assert About().told("Done.") == "Done."
