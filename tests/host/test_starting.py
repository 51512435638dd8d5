import pytest
import torch

from lib_dsm.errors import InputError
from lib_dsm.host.run import examine_run, train
from lib_dsm.host.starting import embedding_choices, find_embedding
from lib_dsm.jobs import Job
from lib_dsm.networks.embedding import Embedding, load_embedding, save_pt, save_safetensors
from lib_dsm.networks.webui_optimizer import checksum
from lib_dsm.training.run_folder import RunFolder


def asuka(folder, **facts):
    vectors = torch.randn(4, 80, generator=torch.Generator().manual_seed(5)) * 0.1
    embedding = Embedding("asuka", vectors, **facts)
    save_pt(embedding, folder / "asuka.pt")
    return embedding


def test_found_by_path_and_by_name(studio, tmp_path):
    folder = studio.folders.embeddings
    with pytest.raises(InputError, match="one of: none"):
        find_embedding(studio, "asuka")
    (folder / "mine").mkdir(parents=True)
    vectors = Embedding("x", torch.ones(1, 3))
    save_safetensors(vectors, folder / "asuka.safetensors")
    save_safetensors(vectors, folder / "mine" / "rei.safetensors")
    assert find_embedding(studio, "asuka") == folder / "asuka.safetensors"
    save_pt(vectors, folder / "asuka.pt")
    assert find_embedding(studio, "asuka") == folder / "asuka.pt"
    assert find_embedding(studio, "asuka.safetensors") == folder / "asuka.safetensors"
    assert find_embedding(studio, "rei") == folder / "mine" / "rei.safetensors"
    save_pt(vectors, tmp_path / "other.pt")
    assert find_embedding(studio, str(tmp_path / "other.pt")) == tmp_path / "other.pt"
    (folder / "mine" / "kaworu.BIN").write_bytes(b"")
    (folder / "asuka.preview.png").write_bytes(b"")
    assert embedding_choices(studio) == ["asuka", "kaworu", "rei"]
    with pytest.raises(InputError, match="one of: asuka, kaworu, rei"):
        find_embedding(studio, "misato")


def test_a_run_starts_from_an_embedding(studio, run_config, tmp_path):
    studio.folders.embeddings.mkdir(parents=True)
    embedding = asuka(studio.folders.embeddings, step=900)
    train(studio, run_config(init_embedding="asuka", max_steps=1, learning_rate="1e-6"), Job("test"))
    result = load_embedding(tmp_path / "runs" / "zorgle.pt")
    assert result.step == 1
    assert 0 < float((result.vectors - embedding.vectors).abs().max()) < 1e-5


def test_a_webui_training_goes_on_and_is_resumed_without_the_file(studio, run_config, tmp_path):
    embedding = asuka(tmp_path, step=900)
    moments = {"step": torch.tensor(900.0), "exp_avg": embedding.vectors * 0.01, "exp_avg_sq": embedding.vectors**2}
    content = {"hash": checksum(embedding.vectors), "optimizer_state_dict": {"state": {0: moments}}}
    torch.save(content, tmp_path / "asuka.pt.optim")
    job = Job("test")
    config = run_config(init_embedding=str(tmp_path / "asuka.pt"), init_continue=True, max_steps=903, save_every=2)
    assert train(studio, config, job).step == 903
    assert any("after step 900" in line and "asuka.pt.optim" in line for line in job.snapshot()["lines"])
    folder = RunFolder(tmp_path / "runs" / "zorgle")
    assert folder.saved_steps() == [902, 903] and [row[0] for row in folder.losses()] == [901, 902, 903]
    _, state = folder.load_latest()
    assert float(state["optimizer.0.step"]) == 903
    assert torch.equal(state["start.0"], embedding.vectors)
    assert load_embedding(tmp_path / "runs" / "zorgle.pt").step == 903
    for path in tmp_path.glob("asuka*"):
        path.unlink()
    longer = run_config(init_embedding=config.init_embedding, init_continue=True, max_steps=904)
    assert train(studio, longer, Job("test"), resume=True).step == 904
    assert torch.equal(folder.load_latest()[1]["start.0"], embedding.vectors)
    # the distance is counted from where the run began, also after the file is gone
    assert list(folder.losses())[-1][6] == pytest.approx(list(folder.losses())[-2][6], rel=0.5)


def test_a_wrong_number_of_vectors_is_refused_before_training(studio, run_config, tmp_path):
    asuka(tmp_path)
    for act in (lambda config: examine_run(studio, config), lambda config: train(studio, config, Job("test"))):
        with pytest.raises(InputError, match="Set the vectors to 4"):
            act(run_config(init_embedding=str(tmp_path / "asuka.pt"), vectors=16))
