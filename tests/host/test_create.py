import pytest
import torch

from lib_dsm.errors import GuardError, InputError
from lib_dsm.host.create import create_network
from lib_dsm.host.run import train
from lib_dsm.jobs import Job
from lib_dsm.networks.embedding import load_embedding
from lib_dsm.networks.textual_inversion import initial_vectors


def test_what_is_created_is_what_a_training_would_begin_with(studio, run_config, micro, tmp_path):
    config = run_config(init_text="red hair", vectors=5, output="", dataset="nowhere", clip_skip=2)
    job = Job("test")
    made = create_network(studio, config, job)
    assert made.published == studio.folders.embeddings / "zorgle.safetensors" and made.files == made.kept == ()
    embedding = load_embedding(made.published)
    assert torch.equal(embedding.vectors, initial_vectors(micro, "red hair", 5))
    assert (embedding.step, embedding.name, embedding.clip_skip) == (0, "zorgle", 2)
    assert "5 untrained vectors" in job.data["summary"]


def test_an_output_folder_gets_both_forms(studio, run_config, tmp_path):
    made = create_network(studio, run_config(output=str(tmp_path / "out")), Job("test"))
    assert [path.name for path in made.files] == ["zorgle.safetensors", "zorgle.pt"]
    vectors = [load_embedding(path).vectors for path in (*made.files, made.published)]
    assert torch.equal(vectors[0], vectors[1]) and torch.equal(vectors[0], vectors[2])


def test_its_own_work_is_replaced_and_that_of_others_kept(studio, run_config):
    config = run_config(output="", max_steps=1, validate_every=0)
    create_network(studio, config, Job("test"))
    made = create_network(studio, run_config(output="", init_text="smile"), Job("test"))
    assert not made.kept
    trained = train(studio, run_config(output="", overwrite=True, max_steps=1, validate_every=0), Job("test")).published
    learned = trained.read_bytes()
    with pytest.raises(GuardError, match='There is an embedding "zorgle" already'):
        create_network(studio, config, Job("test"))
    assert trained.read_bytes() == learned
    made = create_network(studio, run_config(output="", overwrite=True), Job("test"))
    assert [path.read_bytes() for path in made.kept] == [learned]
    assert load_embedding(made.published).step == 0


def test_a_foreign_file_in_the_output_folder_is_in_the_way(studio, run_config, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "zorgle.pt").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"zorgle\.pt already"):
        create_network(studio, run_config(output=str(tmp_path / "out")), Job("test"))
    assert not list(studio.folders.embeddings.glob("*"))
    made = create_network(studio, run_config(output=str(tmp_path / "out"), overwrite=True), Job("test"))
    assert [path.read_bytes() for path in made.kept] == [b"mine"]


def test_a_training_of_what_was_created_may_begin_and_keeps_it(studio, run_config):
    config = run_config(output="", max_steps=1, validate_every=0)
    untrained = create_network(studio, config, Job("test")).published.read_bytes()
    result = train(studio, config, Job("test"))
    assert load_embedding(result.published).step == 1
    kept = result.published.with_name("zorgle.safetensors.old-1")
    assert kept.read_bytes() == untrained
    # Elsewhere too, but not where somebody has changed it.
    create_network(studio, run_config(output="", name="zorgtwo"), Job("test")).published.write_bytes(b"changed")
    with pytest.raises(GuardError, match='There is an embedding "zorgtwo" already'):
        train(studio, run_config(output="", name="zorgtwo", max_steps=1), Job("test"))


def test_a_word_or_too_many_words_are_refused(studio, run_config):
    with pytest.raises(GuardError, match="is a word the model knows"):
        create_network(studio, run_config(name="smile"), Job("test"))
    with pytest.raises(GuardError, match="tokens for 2 vectors"):
        create_network(studio, run_config(init_text="solo, red hair", vectors=2), Job("test"))


def test_it_may_begin_as_another_embedding(studio, run_config):
    first = create_network(studio, run_config(output="", init_text="red hair"), Job("test"))
    second = create_network(studio, run_config(output="", name="zorgtwo", init_embedding="zorgle"), Job("test"))
    assert torch.equal(load_embedding(second.published).vectors, load_embedding(first.published).vectors)
