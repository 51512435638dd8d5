import json

import pytest
import safetensors
import safetensors.torch
import torch

from lib_dsm.errors import InputError, ModelError
from lib_dsm.networks.safetensors_files import data_sha256, open_safetensors, read_header, save_tensors
from lib_dsm.networks.tensor_files import file_kind, open_tensors

TENSORS = {
    "b.half": torch.tensor([[1.0, -2.0, 0.1]], dtype=torch.float16),
    "a.float": torch.randn(3, 5, generator=torch.Generator().manual_seed(2)).T,
    "brain": torch.tensor([1.5], dtype=torch.bfloat16),
    "scalar": torch.tensor(4.0),
    "whole": torch.arange(3),
    "flag": torch.tensor([True]),
    "empty": torch.empty(0, 2),
}
METADATA = {"name": "héllo", "step": "5", "json": '{"a": 1}'}


def test_other_readers_read_it_back(tmp_path):
    path = tmp_path / "a.safetensors"
    save_tensors(path, TENSORS, METADATA)
    found = safetensors.torch.load_file(path)
    assert found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name
    with safetensors.safe_open(str(path), "pt") as file:
        assert file.metadata() == METADATA


def test_reads_what_the_library_wrote(tmp_path):
    path = tmp_path / "a.safetensors"
    contiguous = {name: tensor.contiguous() for name, tensor in TENSORS.items()}
    safetensors.torch.save_file(contiguous, path, METADATA)
    with open_tensors(path) as file:
        assert file.metadata == METADATA
        assert file.shapes["a.float"] == (5, 3) and file.dtypes["b.half"] == torch.float16
        assert all(torch.equal(file.read(name), tensor) for name, tensor in TENSORS.items())


def test_equal_content_gives_equal_bytes_and_the_hash_ignores_metadata(tmp_path):
    save_tensors(tmp_path / "a", TENSORS, METADATA)
    save_tensors(tmp_path / "b", dict(reversed(TENSORS.items())), dict(reversed(METADATA.items())))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert len(data_sha256(TENSORS)) == 64
    assert data_sha256(TENSORS) != data_sha256({**TENSORS, "scalar": torch.tensor(5.0)})


def test_a_header_of_gigabytes_is_refused_without_reading_it(tmp_path):
    path = tmp_path / "huge.safetensors"
    with path.open("wb") as file:
        file.write((2 << 30).to_bytes(8, "little") + b"{")
        file.truncate((2 << 30) + 100)  # sparse
    with pytest.raises(ModelError, match="2147483648 bytes"):
        read_header(path)


def test_truncated_and_damaged_files_are_refused(tmp_path):
    save_tensors(tmp_path / "a", TENSORS, METADATA)
    whole = (tmp_path / "a").read_bytes()
    for size in [*range(0, len(whole), 40), len(whole) - 1]:
        (tmp_path / "t").write_bytes(whole[:size])
        with pytest.raises(ModelError), open_safetensors(tmp_path / "t"):
            pass
    for header in (
        b"[]",
        b'{"a": 5}',
        b'{"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}}',
        b'{"a": {"dtype": "X9", "shape": [1], "data_offsets": [0, 4]}}',
        b"[" * 5000,
    ):
        (tmp_path / "t").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
        with pytest.raises(ModelError):
            read_header(tmp_path / "t")
    with pytest.raises(InputError):
        read_header(tmp_path / "none")


def test_a_checkpoint_in_a_pickle_opens_like_one_in_safetensors(tmp_path):
    torch.save({"state_dict": {"a": torch.ones(2)}, "epoch": 3}, tmp_path / "a.ckpt")
    with open_tensors(tmp_path / "a.ckpt") as file:
        assert dict(file.shapes) == {"a": (2,)} and torch.equal(file.read("a"), torch.ones(2))
    torch.save([torch.ones(2)], tmp_path / "list.pt")
    with pytest.raises(ModelError, match="list"), open_tensors(tmp_path / "list.pt"):
        pass


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"\xff\xd8\xff\xe0", "JPEG"),
        (b"<!DOCTYPE html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS"),
        (json.dumps({"a": 1}).encode(), "JSON"),
        (b"\0\1\2", "unknown"),
        (b"", "empty"),
    ],
)
def test_what_is_no_model_file_is_named(tmp_path, start, kind):
    (tmp_path / "a.safetensors").write_bytes(start)
    assert kind in file_kind(tmp_path / "a.safetensors")
    with pytest.raises(ModelError, match=kind), open_tensors(tmp_path / "a.safetensors"):
        pass
