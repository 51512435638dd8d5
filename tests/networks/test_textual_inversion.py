import dataclasses

import pytest
import torch

from lib_dsm.errors import InputError, ModelError
from lib_dsm.networks.embedding import Embedding, save_pt, save_safetensors
from lib_dsm.networks.textual_inversion import initial_vectors, start_from, without_marks
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


def test_marks_between_words_have_no_part_in_the_mean(micro):
    assert torch.equal(
        initial_vectors(micro, "red hair, smile", 2, "mean"), initial_vectors(micro, "red hair smile", 2, "mean")
    )
    words = micro.token_vectors(micro.tokenize("red hair smile"))
    assert torch.allclose(initial_vectors(micro, "red_hair, (smile).", 1, "mean")[0], words.mean(dim=0))
    # one that is nothing but marks begins as these
    star = micro.token_vectors(micro.tokenize("*"))
    assert torch.equal(initial_vectors(micro, "*", 1, "mean"), star)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("red hair, smile", "red hair  smile"), ("artist's work", "artist's work"), ("'quoted'", " quoted "),
        ("a_b-c", "a b c"), ("猫、犬。", "猫 犬 "), ("ไม้", "ไม้"), ("1+1", "1 1"), ("", ""),
    ],
)  # fmt: skip
def test_words_without_marks(text, words):
    assert without_marks(text) == words


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
