import pytest
import safetensors.torch
import torch

from tests.extraction.helpers import MICRO, TEXT, UNET


@pytest.fixture(scope="module")
def base():
    # Small enough to be saved many times: without the VAE and most of the vocabulary.
    tensors = safetensors.torch.load_file(MICRO)
    table = f"{TEXT}embeddings.token_embedding.weight"
    kept = {key: tensor.float() for key, tensor in tensors.items() if key.startswith((UNET, TEXT))}
    return {**kept, table: kept[table][:50].clone(), f"{TEXT}embeddings.position_ids": torch.arange(77)[None]}


@pytest.fixture(scope="module")
def folder(base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    safetensors.torch.save_file(base, folder / "base.safetensors")
    return folder
