"""What the page of the tab Train asks for: plans, tokens, runs and their steps, presets."""

from __future__ import annotations

import json
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from lib_dsm.diffusion.diffusers import DiffusersModel
from lib_dsm.networks.embedding import load_embedding
from lib_dsm.networks.textual_inversion import initial_vectors
from lib_dsm.training.config import RunConfig
from tests.api.test_routes import V1, finish


@pytest.fixture
def config(opened) -> dict:
    """The settings of a very small run on the opened pictures."""
    return {
        "name": "zorgle", "checkpoint": "micro.safetensors", "dataset": str(opened), "vectors": 2, "init_text": "solo",
        "learning_rate": "0.01", "max_steps": 4, "gradient_accumulation": 1, "width": 64, "height": 64, "save_every": 2,
        "preview_every": 2, "validate_every": 0,
        "previews": [{"prompt": "solo, [name]", "steps": 2, "width": 64, "height": 64, "seed": 7}],
    }  # fmt: skip


@pytest.fixture
def run(client, config) -> dict:
    """That run, trained to its end; the job as the page sees it."""
    job = finish(client, client.post(V1 + "train/start", json={"config": config}).json()["job"])
    assert job["state"] == "done", job["error"]
    return job


def plan(client, config: dict, **more) -> dict:
    answer = client.post(V1 + "train/plan", json={"config": config, **more})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_plan_says_what_the_settings_come_to(client, config):
    # Pictures of 80×80, 120×80 and 160×80 pixels at sizes of multiples of 16 with at most 64×64 pixels.
    facts = plan(client, {**config, "size_step": 16, "batch_size": 2, "gradient_accumulation": 3, "repeats": 4})
    assert {(item["width"], item["height"]): item["pictures"] for item in facts["buckets"]} == {
        (64, 64): 1,
        (48, 32): 1,
        (64, 32): 1,
    }
    assert facts["count"] == facts["captioned"] == 3
    assert (facts["pictures_per_step"], facts["steps_per_epoch"], facts["epochs"]) == (6, 2.0, 2.0)
    assert "pictures" not in facts


def test_a_plan_shows_each_pictures_crop(client, config):
    facts = plan(client, {**config, "variable_aspect": False}, pictures=True)
    assert [item["name"] for item in facts["pictures"]] == ["a.png", "b.png", "c.png"]
    shares = {item["name"]: item["lost"] for item in facts["pictures"]}
    assert shares == pytest.approx({"a.png": 0, "b.png": 1 / 3, "c.png": 1 / 2})
    for item in facts["pictures"]:
        left, top, right, bottom = item["box"]
        assert 0 <= left < right <= 1 and 0 <= top < bottom <= 1
        assert (right - left) * (bottom - top) == pytest.approx(1 - item["lost"])
        assert left == pytest.approx(1 - right) and top == pytest.approx(1 - bottom)
    bucket = facts["buckets"][0]
    assert (bucket["lost"], bucket["most_lost"]) == pytest.approx((5 / 18, 1 / 2))
    assert client.get(V1 + "thumbnail", params={"path": facts["pictures"][0]["path"]}).status_code == 200


def test_a_plan_draws_the_rate_of_every_trained_step(client, config):
    rate = {"learning_rate": "0.01:3, 0.001:5", "max_steps": 100, "schedule": "steps", "warmup_steps": 0}
    facts = plan(client, {**config, **rate})
    assert facts["rate"] == [[1, 0.01], [2, 0.01], [3, 0.01], [4, 0.001], [5, 0.001]]
    long = plan(client, {**config, "learning_rate": "0.01", "max_steps": 100_000, "schedule": "cosine"})["rate"]
    assert (long[0][0], long[-1][0]) == (1, 100_000) and len(long) <= 300
    middle = min(long, key=lambda point: abs(point[0] - 50_000))
    assert math.isclose(middle[1], 0.005, rel_tol=0.02)
    assert "0.0005:5000" in plan(client, {**config, "learning_rate": "0.01:"})["rate_problem"]


def test_a_plan_gives_the_prompts_that_the_training_reads(client, config, opened, service, monkeypatch):
    settings = {"template": ["one [filewords], [name]", "two [name]"], "tag_dropout": 0.3, "seed": 5, "max_steps": 4}
    prompts = plan(client, {**config, **settings})["prompts"]
    read = []
    encode = DiffusersModel.encode_prompts

    def listening(self, texts, *others):
        read.extend(texts)
        return encode(self, texts, *others)

    monkeypatch.setattr(DiffusersModel, "encode_prompts", listening)
    more = {"preview_every": 0, "previews": []}
    finish(client, client.post(V1 + "train/start", json={"config": {**config, **settings, **more}}).json()["job"])
    assert read == prompts and len(set(prompts)) > 1
    assert "not named" in plan(client, {**config, "template_source": "file"})["prompts_problem"]


def test_a_plan_counts_without_the_pictures_held_out(client, config):
    facts = plan(client, {**config, "validation_share": 0.4})
    assert (facts["count"], facts["held_out"], facts["steps_per_epoch"], facts["epochs"]) == (3, 1, 2.0, 2.0)


def test_a_plan_names_what_it_leaves_out(client, config, opened):
    (opened / "text.png").write_text("no picture", encoding="utf-8")
    facts = plan(client, config)
    assert [item["name"] for item in facts["skipped"]] == ["text.png"] and facts["count"] == 3


def test_tokens_are_those_the_vectors_begin_with(client, micro):
    text, vectors = "solo, blue hair", 7
    ask = {"text": text, "checkpoint": "micro.safetensors", "vectors": vectors}
    answer = client.post(V1 + "train/tokens", json=ask).json()
    assert answer["tokens"] == ["solo", ",", "blue", "hair"]
    rows = micro.token_vectors(micro.tokenize(text))
    assert torch.equal(rows[answer["vectors"]], initial_vectors(micro, text, vectors))


@pytest.mark.parametrize(("text", "count"), [("", 0), ("*", 1), ("zorgle", 2), ("ねこ", None)])
def test_tokens_of_odd_texts(client, micro, text, count):
    answer = client.post(V1 + "train/tokens", json={"text": text, "vectors": 3}).json()
    assert len(answer["tokens"]) == len(micro.tokenize(text))
    assert count is None or len(answer["tokens"]) == count
    assert len(answer["vectors"]) == (3 if answer["tokens"] else 0)


def test_tokens_are_counted_for_several_windows_at_once(client):
    def ask(index: int) -> int:
        text = "solo, " * index
        return len(client.post(V1 + "train/tokens", json={"text": text, "vectors": 3}).json()["tokens"])

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(40))) == [2 * index for index in range(40)]


def test_tokens_of_a_novel_are_refused(client):
    assert client.post(V1 + "train/tokens", json={"text": "word " * 1000, "vectors": 3}).status_code == 400


def test_an_empty_number_is_named(client, config):
    answer = client.post(V1 + "train/start", json={"config": {**config, "max_steps": None}})
    assert answer.status_code == 400
    assert answer.json()["error"]["problem"] == "Max steps is empty."


def test_an_untrained_embedding_is_created_without_pictures(client, config, service):
    wish = {"config": {**config, "dataset": ""}}
    job = finish(client, client.post(V1 + "train/create", json=wish).json()["job"])
    assert job["state"] == "done" and "2 untrained vectors" in job["data"]["summary"], job
    published = service.host.folders.embeddings / "zorgle.safetensors"
    assert job["data"]["published"] == str(published) and load_embedding(published).step == 0
    published.write_bytes(b"another")
    job = finish(client, client.post(V1 + "train/create", json=wish).json()["job"])
    assert job["state"] == "failed" and "already" in job["error"] and published.read_bytes() == b"another"


@pytest.mark.parametrize("key", ["output", "template_file", "init_embedding", "checkpoint"])
def test_creating_leads_out_of_the_opened_folders_neither(client, config, tmp_path, key):
    (tmp_path / "secret.pt").write_text("secret", encoding="utf-8")
    place = tmp_path if key == "output" else tmp_path / "secret.pt"
    answer = client.post(V1 + "train/create", json={"config": {**config, key: str(place)}})
    assert answer.status_code == 403


@pytest.mark.parametrize("route", ["plan", "check", "start"])
@pytest.mark.parametrize("key", ["dataset", "output", "template_file", "init_embedding", "checkpoint"])
def test_no_setting_leads_out_of_the_opened_folders(client, config, tmp_path, route, key):
    (tmp_path / "secret.pt").write_text("[name] secret", encoding="utf-8")
    place = tmp_path if key in ("dataset", "output") else tmp_path / "secret.pt"
    for way in (str(place), f"{config['dataset']}/../../{place.name if place != tmp_path else ''}"):
        answer = client.post(f"{V1}train/{route}", json={"config": {**config, key: way}})
        assert answer.status_code == 403, (way, answer.text)


def test_an_embedding_by_name_cannot_climb(client, config):
    answer = client.post(V1 + "train/start", json={"config": {**config, "init_embedding": "../../x"}})
    assert answer.status_code == 403


def test_runs_are_listed_with_their_newest_preview(client, run, service):
    damaged = service.host.folders.logs / "damaged"
    damaged.mkdir()
    (damaged / "run.json").write_text("{", encoding="utf-8")
    found = {item["name"]: item for item in client.get(V1 + "train/runs").json()["runs"]}
    assert (found["zorgle"]["step"], found["zorgle"]["max_steps"], found["zorgle"]["job"]) == (4, 4, None)
    assert Path(found["zorgle"]["picture"]).name == "step-000004-1.png"
    assert client.get(V1 + "thumbnail", params={"path": found["zorgle"]["picture"]}).status_code == 200
    assert "not valid JSON" in found["damaged"]["problem"]


def test_a_run_is_shown_as_it_was(client, run, config):
    shown = client.get(V1 + "train/run", params={"run": "zorgle"}).json()
    assert {key: shown["config"][key] for key in ("vectors", "learning_rate")} == {
        "vectors": 2,
        "learning_rate": "0.01",
    }
    assert shown["job"]["data"]["losses"] == run["data"]["losses"]
    places = [(item["step"], item["index"], item["seed"]) for item in shown["job"]["data"]["previews"]]
    assert places == [(2, 0, 7), (4, 0, 7)]
    assert client.get(V1 + "jobs", params={"tab": "train"}).json()["jobs"][-1]["id"] == run["id"]  # looking starts none


@pytest.mark.parametrize("name", ["../zorgle", "none", "", "zorgle/..", "/etc"])
@pytest.mark.parametrize("route", ["resume", "use", "continue"])
def test_only_runs_of_the_list_can_be_acted_on(client, run, name, route):
    assert client.get(V1 + "train/run", params={"run": name}).status_code in (400, 404)
    assert client.post(f"{V1}train/{route}", json={"run": name, "step": 2}).status_code in (400, 404)


def test_a_run_is_resumed_with_more_steps(client, run):
    job = finish(client, client.post(V1 + "train/resume", json={"run": "zorgle", "max_steps": 6}).json()["job"])
    assert (job["state"], job["done"], len(job["data"]["losses"])) == ("done", 6, 6), job["error"]


def test_a_step_is_used(client, run, service):
    published = service.host.folders.embeddings / "zorgle.safetensors"
    last = published.read_bytes()
    job = finish(client, client.post(V1 + "train/use", json={"run": "zorgle", "step": 2}).json()["job"])
    assert job["state"] == "done" and "step 2" in job["data"]["summary"], job
    assert load_embedding(published).step == 2 and published.read_bytes() != last
    job = finish(client, client.post(V1 + "train/use", json={"run": "zorgle", "step": 3}).json()["job"])
    assert job["state"] == "failed" and "Saved steps: 2, 4." in job["error"]


def test_a_new_run_goes_on_after_a_step(client, run):
    wish = {"run": "zorgle", "step": 2, "changes": {"name": "zorgletwo", "max_steps": 5, "learning_rate": "0.001"}}
    job = finish(client, client.post(V1 + "train/continue", json=wish).json()["job"])
    assert (job["state"], job["done"]) == ("done", 5), job["error"]
    assert job["data"]["losses"][:2] == run["data"]["losses"][:2]
    assert {item["name"] for item in client.get(V1 + "train/runs").json()["runs"]} == {"zorgle", "zorgletwo"}
    for key in ("output", "dataset", "checkpoint"):
        refused = client.post(V1 + "train/continue", json={**wish, "changes": {"name": "zorglethree", key: "/tmp"}})
        assert refused.status_code == 400 and key in refused.json()["error"]["problem"]


def test_presets_are_saved_listed_and_deleted(client, config):
    given = client.get(V1 + "train/presets").json()["presets"]
    assert given and not any(preset["own"] for preset in given)
    saved = client.post(V1 + "train/presets", json={"name": "mine", "settings": config}).json()
    assert saved["settings"]["vectors"] == 2 and "dataset" not in saved["settings"]
    assert client.get(V1 + "train/presets").json()["presets"][-1] == saved
    assert client.request("DELETE", V1 + "train/presets", json={"name": "mine"}).json()["presets"] == given
    assert client.request("DELETE", V1 + "train/presets", json={"name": given[0]["name"]}).status_code == 400
    assert client.post(V1 + "train/presets", json={"name": "../x", "settings": {}}).status_code == 400


def test_a_settings_file_is_checked_and_may_be_partial(client):
    def read(text: str):
        return client.post(V1 + "train/settings", json={"text": text})

    assert read('{"vectors": 3, "template": ["a [name]"]}').json()["settings"] == {
        "vectors": 3, "template": ["a [name]"],
    }  # fmt: skip
    assert read("{}").json()["settings"] == {}
    for text, word in (
        ("{", "JSON"),
        ("[]", "no object"),
        ('{"vectros": 3}', "vectros"),
        ('{"vectors": 0}', "below 1"),
    ):
        answer = read(text)
        assert answer.status_code == 400 and word in answer.json()["error"]["problem"]
    whole = json.dumps({"name": "a", "checkpoint": "b", "dataset": "c", "vectors": 5})
    assert RunConfig(**read(whole).json()["settings"]) == RunConfig("a", "b", "c", vectors=5)
