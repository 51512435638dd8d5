import io
import os
import pickle
import zipfile
from collections import OrderedDict

import pytest
import torch

from lib_dsm.errors import InputError, ModelError
from lib_dsm.networks.pickles import load_pickle, save_pickle


def state():
    shared = torch.arange(12, dtype=torch.float32)
    return {
        "state_dict": OrderedDict(
            weight=torch.randn(4, 3, generator=torch.Generator().manual_seed(1)),
            view=shared[2:8].view(2, 3),
            turned=shared.view(3, 4).T,
            half=torch.tensor([0.1, -65504.0], dtype=torch.float16),
            brain=torch.tensor([0.1, 3e38], dtype=torch.bfloat16),
            whole=torch.tensor([[2**40]]),
            flags=torch.tensor([True, False]),
            scalar=torch.tensor(3.5),
            empty=torch.empty(0, 4),
            parameter=torch.nn.Parameter(torch.ones(2)),
        ),
        "global_step": 7,
        "words": ("é", None, [1.5, True]),
    }


def assert_same(found, wanted):
    assert found["global_step"] == 7 and found["words"] == wanted["words"]
    assert list(found["state_dict"]) == list(wanted["state_dict"])
    for name, tensor in wanted["state_dict"].items():
        assert found["state_dict"][name].dtype == tensor.dtype
        assert torch.equal(found["state_dict"][name], tensor), name


@pytest.mark.parametrize("zipped", [True, False])
def test_reads_what_torch_wrote(tmp_path, zipped):
    path = tmp_path / "a.ckpt"
    torch.save(state(), path, _use_new_zipfile_serialization=zipped)
    assert_same(load_pickle(path), state())


def test_reads_a_state_dict_with_metadata_and_a_parameter_dict(tmp_path):
    torch.save(torch.nn.Linear(2, 3).state_dict(), tmp_path / "linear.pt")
    assert load_pickle(tmp_path / "linear.pt")["weight"].shape == (3, 2)
    module = torch.nn.ParameterDict({"*": torch.nn.Parameter(torch.ones(2, 3))})
    torch.save({"string_to_param": module}, tmp_path / "old.pt")
    assert torch.equal(load_pickle(tmp_path / "old.pt")["string_to_param"]["*"], torch.ones(2, 3))


def test_the_file_can_be_replaced_and_is_not_changed_by_work_on_its_tensors(tmp_path):
    path = tmp_path / "a.pt"
    save_pickle(path, {"a": torch.ones(3)})
    tensor = load_pickle(path)["a"]
    tensor += 1
    assert torch.equal(load_pickle(path)["a"], torch.ones(3))
    save_pickle(path, {"a": torch.zeros(3)})
    assert torch.equal(tensor, torch.full((3,), 2.0))


def test_writing_round_trips_and_is_deterministic(tmp_path):
    save_pickle(tmp_path / "a.pt", state())
    save_pickle(tmp_path / "b.pt", state())
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()
    assert_same(load_pickle(tmp_path / "a.pt"), state())
    assert_same(torch.load(tmp_path / "a.pt", weights_only=True), state())


def test_writes_only_records_that_the_webui_lets_pass(tmp_path):
    save_pickle(tmp_path / "a.pt", {"a": torch.ones(3)})
    names = {name.partition("/")[2] for name in zipfile.ZipFile(tmp_path / "a.pt").namelist()}
    assert {"data.pkl", "version", "data/0"} <= names
    assert names <= {"data.pkl", "version", "data/0", "byteorder"}


class Evil:
    def __init__(self, mark):
        self.command = f"touch '{mark}'"

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_would_run_a_command_is_refused_by_name(tmp_path, zipped):
    mark = tmp_path / "was-here"
    torch.save({"a": torch.ones(1), "b": Evil(mark)}, tmp_path / "e.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ModelError, match=r"\.system\"") as error:
        load_pickle(tmp_path / "e.pt")
    assert "safetensors" in error.value.remedy
    assert not mark.exists()


def test_a_bare_pickle_that_would_run_a_command_is_refused(tmp_path):
    mark = tmp_path / "was-here"
    for protocol in (2, 4, 5):
        (tmp_path / "e.pt").write_bytes(pickle.dumps(Evil(mark), protocol=protocol))
        with pytest.raises(ModelError, match=r"\.system\""):
            load_pickle(tmp_path / "e.pt")
    assert not mark.exists()


@pytest.mark.parametrize("name", ["builtins.eval", "builtins.getattr", "torch.load", "torch.hub.load", "numpy.ndarray"])
def test_other_names_are_refused(tmp_path, name):
    module, _, function = name.rpartition(".")
    structure = b"\x80\x02c" + f"{module}\n{function}\n".encode() + b"."
    with zipfile.ZipFile(tmp_path / "e.pt", "w") as archive:
        archive.writestr("archive/data.pkl", structure)
    with pytest.raises(ModelError, match=name.replace(".", r"\.")):
        load_pickle(tmp_path / "e.pt")


def test_a_pickle_cannot_change_what_the_next_file_is_read_with(tmp_path):
    # GLOBAL _rebuild_tensor_v2, then BUILD with slot state {"__defaults__": (1,)} on the function itself.
    function = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n"
    attack = function + b"N}X\x0c\x00\x00\x00__defaults__K\x01\x85s\x86b."
    for name, structure in (("e.pt", attack), ("plain.pt", function + b".")):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("archive/data.pkl", structure)
    for name, sentence in (("e.pt", "sets attributes"), ("plain.pt", "a function, not data")):
        with pytest.raises(ModelError, match=sentence):
            load_pickle(tmp_path / name)


def archived(tmp_path, structure):
    with zipfile.ZipFile(tmp_path / "e.pt", "w") as archive:
        archive.writestr("archive/data.pkl", structure)
        archive.writestr("archive/data/0", bytes(64))
    return tmp_path / "e.pt"


STORAGE = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x10tQ"
TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n(" + STORAGE + b"K\0"


@pytest.mark.parametrize(
    ("structure", "sentence"),
    [
        # A place in the memo for which the usual reader takes 34 GB.
        (b"]r\xff\xff\xff\x7fX\xff\xff\xff\xff.", "ends before"),
        (b"\x8e" + (2**62).to_bytes(8, "little") + b".", "ends before"),
        (b"}" + b")" + b"\x85" * 2_000_000 + b"K\x01s.", "a key is a tuple"),
        (b"\x8f(" + b")" + b"\x85" * 2_000_000 + b"\x90.", "a key is a tuple"),
        (b")" + b"\x85" * 2_000_000 + b".", "too deep"),
        (b"]q\0h\0a.", "too deep"),
        (b")" + b"2\x86" * 40 + b"\x85.", "again and again"),
        (TENSOR + b"\x8a\x05\0\0\0\0\x10\x85K\0\x85tR.", "larger than its data"),
        (b"]" + (TENSOR + b"J\0\0\x10\0\x85K\0\x85tRa") * 40 + b".", "larger than the file"),
    ],
    ids=["memo", "length", "key", "element", "depth", "itself", "laughs", "stride", "strides"],
)
def test_a_few_bytes_cannot_take_much_memory_or_end_the_process(tmp_path, structure, sentence):
    with pytest.raises(ModelError, match=sentence):
        load_pickle(archived(tmp_path, b"\x80\x02" + structure))


@pytest.mark.parametrize("zipped", [True, False])
def test_truncated_at_any_place_is_refused(tmp_path, zipped):
    buffer = io.BytesIO()
    torch.save(state(), buffer, _use_new_zipfile_serialization=zipped)
    whole = buffer.getvalue()
    for size in [*range(0, len(whole) - 1, max(1, len(whole) // 60)), len(whole) - 1]:
        (tmp_path / "t.pt").write_bytes(whole[:size])
        with pytest.raises(ModelError):
            load_pickle(tmp_path / "t.pt")


def test_a_tensor_beyond_its_storage_is_refused(tmp_path):
    buffer = io.BytesIO()
    torch.save({"a": torch.ones(3)}, buffer)
    with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(tmp_path / "t.pt", "w") as target:
        for info in source.infolist():
            content = source.read(info)
            # The size, a tuple with the one number 3, becomes 99; the storage keeps three.
            target.writestr(info.filename, content.replace(b"K\x03\x85", b"K\x63\x85"))
    with pytest.raises(ModelError, match="damaged"):
        load_pickle(tmp_path / "t.pt")


def test_other_files_are_refused_in_a_sentence(tmp_path):
    (tmp_path / "text.pt").write_text("hello")
    (tmp_path / "zip.pt").write_bytes(b"")
    with zipfile.ZipFile(tmp_path / "zip.pt", "w") as archive:
        archive.writestr("a.txt", "hello")
    (tmp_path / "number.pt").write_bytes(pickle.dumps(5))
    for name in ("text.pt", "zip.pt", "number.pt"):
        with pytest.raises(ModelError):
            load_pickle(tmp_path / name)
    with pytest.raises(InputError, match=r"none\.pt"):
        load_pickle(tmp_path / "none.pt")
    with pytest.raises(InputError):
        load_pickle(tmp_path)
