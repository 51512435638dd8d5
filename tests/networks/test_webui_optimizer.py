import os

import pytest
import torch

from lib_dsm.errors import InputError, ModelError
from lib_dsm.files import sha256
from lib_dsm.networks.hypernetwork import Hypernetwork, save_pt
from lib_dsm.networks.hypernetwork_modules import Pairs, initialise
from lib_dsm.networks.hypernetwork_structure import Structure
from lib_dsm.networks.webui_optimizer import (
    MOMENTS,
    checksum,
    moments_beside,
    read_hypernetwork_moments,
    read_moments,
    save_hypernetwork_moments,
)


@pytest.fixture
def trained():
    """Vectors that torch's AdamW has moved three times, and its state, as the WebUI would save them."""
    vectors = torch.nn.Parameter(torch.randn(3, 16, generator=torch.Generator().manual_seed(1)))
    optimizer = torch.optim.AdamW([vectors], lr=0.01, weight_decay=0.0)
    for _ in range(3):
        (vectors * torch.arange(48.0).reshape(3, 16)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return vectors.detach(), optimizer.state_dict()


@pytest.mark.parametrize(("scale", "expected"), [(2**-10, "a3ed"), (2**-4, "70d4"), (2**8, "1400")])
def test_the_checksum_is_the_webuis(scale, expected):
    """The expected digits came from the WebUI's own code (v1.10.1, torch 2.1.2)."""
    vectors = scale * ((torch.arange(165) * 37 % 101) - 50).float().reshape(5, 33)
    assert checksum(vectors) == expected
    assert checksum(vectors + scale) != expected or scale < 0.01  # it sees hundredths alone


def test_the_state_that_belongs_to_the_vectors_is_read(trained, tmp_path):
    vectors, state = trained
    torch.save({"hash": checksum(vectors), "optimizer_state_dict": state}, tmp_path / "a.pt.optim")
    moments, note = moments_beside(tmp_path / "a.pt", vectors)
    assert moments.keys() == {"step", "exp_avg", "exp_avg_sq"} and "a.pt.optim" in note
    assert float(moments["step"]) == 3
    for name in ("exp_avg", "exp_avg_sq"):
        assert torch.equal(moments[name], state["state"][0][name])


def test_older_torch_counted_steps_in_plain_numbers(trained, tmp_path):
    vectors, state = trained
    state["state"][0]["step"] = 3
    torch.save({"hash": checksum(vectors), "optimizer_state_dict": state}, tmp_path / "a.pt.optim")
    assert torch.equal(read_moments(tmp_path / "a.pt.optim", vectors)["step"], torch.tensor(3.0))


def test_what_does_not_belong_is_left_aside_and_said(trained, tmp_path):
    vectors, state = trained
    path = tmp_path / "a.pt.optim"

    def refused(content, match, of=vectors):
        torch.save(content, path)
        with pytest.raises(ModelError, match=match):
            read_moments(path, of)
        assert moments_beside(tmp_path / "a.pt", of)[0] is None

    good = {"hash": checksum(vectors), "optimizer_state_dict": state}
    refused(good, "other vectors", vectors + 1)
    refused({**good, "hash": None}, "other vectors")
    refused({"hash": checksum(vectors)}, "no optimizer state")
    refused([1], "no optimizer state")
    refused({**good, "optimizer_state_dict": {"state": {}}}, "not AdamW's")
    refused({**good, "optimizer_state_dict": {"state": {0: {"step": 1, "momentum": vectors}}}}, "not AdamW's")
    wrong = {"step": 1, "exp_avg": vectors[:2], "exp_avg_sq": vectors[:2]}
    refused({**good, "optimizer_state_dict": {"state": {0: wrong}}}, "not AdamW's")
    broken = {"step": 1, "exp_avg": vectors, "exp_avg_sq": vectors * float("nan")}
    refused({**good, "optimizer_state_dict": {"state": {0: broken}}}, "not AdamW's")
    with pytest.raises(InputError):
        read_moments(tmp_path / "none.pt.optim", vectors)
    assert moments_beside(tmp_path / "none.pt", vectors) == (
        None, "There is no none.pt.optim, so the optimizer begins anew.",
    )  # fmt: skip


def test_nothing_in_the_file_is_executed(trained, tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "owned"),)

    path = tmp_path / "a.pt.optim"
    torch.save({"hash": checksum(trained[0]), "optimizer_state_dict": Evil()}, path)
    with pytest.raises(ModelError, match="mkdir"):
        read_moments(path, trained[0])
    assert not (tmp_path / "owned").exists()


@pytest.fixture
def hypernetwork(tmp_path):
    """A hypernetwork's file, its parameters as torch's AdamW has moved them twice, and that optimizer's state."""
    pairs = Pairs.empty(Structure((8, 4)))
    initialise(pairs, "Normal", 0.01, 0)
    parameters = list(pairs.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=0.01)
    for step in range(2):
        sum((parameter * (step + 1)).square().sum() for parameter in parameters).backward()
        optimizer.step()
    path = tmp_path / "style.pt"
    save_pt(Hypernetwork(pairs.tensors(), {"name": "style"}), path)
    return path, parameters, optimizer


def test_a_hypernetworks_state_is_written_and_read(hypernetwork):
    path, parameters, optimizer = hypernetwork
    beside, state = path.with_name("style.pt.optim"), optimizer.state_dict()["state"]
    save_hypernetwork_moments(beside, path, [state[index] for index in range(len(parameters))], 0.01)
    found = read_hypernetwork_moments(beside, path, [parameter.shape for parameter in parameters])
    for index, moments in enumerate(found):
        assert all(torch.equal(moments[name], state[index][name]) for name in MOMENTS)
    content = torch.load(beside, weights_only=True)
    assert content["optimizer_name"] == "AdamW" and content["hash"] == sha256(path)[:10]
    again = torch.optim.AdamW(parameters, lr=0.5)
    again.load_state_dict(content["optimizer_state_dict"])  # as the WebUI does
    assert torch.equal(again.state[parameters[1]]["exp_avg"], state[1]["exp_avg"])


def test_a_hypernetworks_state_of_another_run_is_refused(hypernetwork):
    path, parameters, optimizer = hypernetwork
    beside, shapes = path.with_name("style.pt.optim"), [parameter.shape for parameter in parameters]
    moments = [optimizer.state_dict()["state"][index] for index in range(len(parameters))]
    save_hypernetwork_moments(beside, path, moments, 0.01)
    with pytest.raises(ModelError, match=r"not AdamW's of this hypernetwork"):
        read_hypernetwork_moments(beside, path, [*shapes, torch.Size([3])])
    content = torch.load(beside, weights_only=True)
    torch.save({**content, "optimizer_name": "SGD"}, beside)
    with pytest.raises(ModelError, match="the state of SGD"):
        read_hypernetwork_moments(beside, path, shapes)
    torch.save(content, beside)
    with path.open("ab") as file:
        file.write(b"\0")
    with pytest.raises(ModelError, match="belongs to another file"):
        read_hypernetwork_moments(beside, path, shapes)
