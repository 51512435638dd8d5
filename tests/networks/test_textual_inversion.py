import dataclasses

import pytest
import torch

from lib_dsm.errors import InputError, ModelError
from lib_dsm.networks.embedding import Embedding, save_pt, save_safetensors
from lib_dsm.networks.textual_inversion import initial_vectors, start_from
from lib_dsm.networks.webui_optimizer import checksum


class Words:
    """A model of which only the words are known: token n's vector is n, n + 1, …"""

    hidden_size = 3

    def tokenize(self, text):
        return [int(word) for word in text.split()]

    def token_vectors(self, ids):
        return torch.tensor([[float(number + place) for place in range(3)] for number in ids])


def test_tokens_are_stretched_over_the_vectors():
    vectors = initial_vectors(Words(), "10 20", 5)
    assert vectors[:, 0].tolist() == [10, 10, 10, 20, 20]
    assert initial_vectors(Words(), "", 2).tolist() == [[0, 0, 0], [0, 0, 0]]
    with pytest.raises(InputError, match="3 tokens, more than the 2 vectors"):
        initial_vectors(Words(), "1 2 3", 2)


def test_the_mean_takes_any_number_of_words():
    for count in (1, 2, 5):
        assert initial_vectors(Words(), "10 20 60", count, "mean").tolist() == [[30, 31, 32]] * count
    assert initial_vectors(Words(), "", 2, "mean").tolist() == [[0, 0, 0], [0, 0, 0]]


@pytest.fixture
def asuka():
    return Embedding("asuka", torch.arange(6.0).reshape(2, 3) / 7, step=1200, checkpoint_name="nai", clip_skip=2)


def test_vectors_of_an_embedding_alone(asuka, tmp_path):
    save_safetensors(asuka, tmp_path / "asuka.safetensors")
    start = start_from(Words(), tmp_path / "asuka.safetensors", 2, go_on=False)
    assert torch.equal(start.vectors, asuka.vectors)
    assert (start.step, start.moments, start.embedding.clip_skip) == (0, None, 2)


def test_its_training_goes_on(asuka, tmp_path):
    path = tmp_path / "asuka.pt"
    save_pt(asuka, path)
    start = start_from(Words(), path, 2, go_on=True)
    assert (start.step, start.moments) == (1200, None) and "after step 1200" in start.note
    state = {"step": torch.tensor(1200.0), "exp_avg": asuka.vectors * 2, "exp_avg_sq": asuka.vectors * 3}
    content = {"hash": checksum(asuka.vectors), "optimizer_state_dict": {"state": {0: state}, "param_groups": []}}
    torch.save(content, tmp_path / "asuka.pt.optim")
    start = start_from(Words(), path, 2, go_on=True)
    assert start.moments.keys() == state.keys()
    assert all(torch.equal(start.moments[name], state[name]) for name in state)


def test_an_unknown_step_is_said(asuka, tmp_path):
    save_pt(dataclasses.replace(asuka, step=None), tmp_path / "asuka.pt")
    start = start_from(Words(), tmp_path / "asuka.pt", 2, go_on=True)
    assert start.step == 0 and "does not tell" in start.note


def test_what_does_not_fit_is_refused_with_the_remedy(asuka, tmp_path):
    save_pt(asuka, tmp_path / "asuka.pt")
    with pytest.raises(InputError, match=r"has 2 vectors; the settings ask for 16\. Set the vectors to 2"):
        start_from(Words(), tmp_path / "asuka.pt", 16, go_on=False)
    save_pt(Embedding("wide", torch.ones(2, 8)), tmp_path / "wide.pt")
    with pytest.raises(ModelError, match="8 wide; those of the checkpoint 3"):
        start_from(Words(), tmp_path / "wide.pt", 2, go_on=False)
