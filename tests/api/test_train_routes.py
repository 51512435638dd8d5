"""What the page of the tab Train asks for: plans, tokens, runs and their steps, presets."""

from __future__ import annotations

import csv
import json
import math
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from lib_dsm.diffusion.diffusers import DiffusersModel
from lib_dsm.networks.embedding import Embedding, load_embedding, save_pt
from lib_dsm.networks.safetensors_files import read_header
from lib_dsm.networks.textual_inversion import initial_vectors
from lib_dsm.pruning.prune import PruneOptions, plan_prune
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
        (80, 48): 1,
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
    # Where an embedding's own training goes on, so do the showings.
    service.host.folders.embeddings.mkdir(parents=True, exist_ok=True)
    save_pt(Embedding("before", torch.ones(2, 80), step=2), service.host.folders.embeddings / "before.pt")
    later = {**config, **settings, "init_embedding": "before", "init_continue": True}
    assert plan(client, later)["prompts"][:2] == prompts[2:]
    assert "not named" in plan(client, {**config, "template_source": "file"})["prompts_problem"]


def test_a_plan_counts_without_the_pictures_held_out(client, config):
    facts = plan(client, {**config, "validation_share": 0.4})
    assert (facts["count"], facts["held_out"], facts["steps_per_epoch"], facts["epochs"]) == (3, 1, 2.0, 2.0)


def test_a_plan_counts_the_steps_that_are_made(client, config, service):
    """To where the rate ends, and from where an embedding's own training had come."""
    settings = {**config, "max_steps": 100, "learning_rate": "0.01:30"}
    facts = plan(client, settings)
    assert (facts["steps"], facts["epochs"]) == (30, 10.0)
    assert plan(client, {**settings, "learning_rate": "0.01:"})["steps"] == 100
    service.host.folders.embeddings.mkdir(parents=True, exist_ok=True)
    save_pt(Embedding("before", torch.ones(2, 80), step=24), service.host.folders.embeddings / "before.pt")
    facts = plan(client, {**settings, "init_embedding": "before", "init_continue": True})
    assert (facts["steps"], facts["epochs"]) == (6, 2.0)
    assert plan(client, {**settings, "init_embedding": "before"})["steps"] == 30
    assert plan(client, {**settings, "init_embedding": "nothing", "init_continue": True})["steps"] == 30


def test_a_plan_names_what_it_leaves_out(client, config, opened):
    (opened / "text.png").write_text("no picture", encoding="utf-8")
    facts = plan(client, config)
    assert [item["name"] for item in facts["skipped"]] == ["text.png"] and facts["count"] == 3


def test_words_to_start_from_are_what_was_pruned(client, opened):
    ask = {"dataset": str(opened), "checkpoint": "micro.safetensors", "vectors": 3}
    refused = client.post(V1 + "train/words", json=ask)
    assert refused.status_code == 400 and "No tag was pruned" in refused.text
    (opened / "a.txt").write_text("1girl, blue eyes, hat, smile", encoding="utf-8")
    plan_prune(opened, PruneOptions(remove=("blue eyes", "1girl", "hat"))).apply()
    answer = client.post(V1 + "train/words", json=ask).json()
    assert answer == {"text": "1girl", "tags": ["1girl", "blue eyes"]}  # "hat" is of one picture
    assert client.post(V1 + "train/words", json={**ask, "vectors": 8}).json()["text"] == "1girl blue eyes"
    (opened / "b.txt").write_text("1girl, outdoors", encoding="utf-8")  # "1girl" came back to most
    (opened / "a.txt").write_text("1girl, smile", encoding="utf-8")
    refused = client.post(V1 + "train/words", json={**ask, "vectors": 1}).json()["error"]
    assert refused["problem"].startswith('The shortest of the pruned tags, "blue eyes", needs 2 vectors')
    prune = PruneOptions(remove=("1girl",))
    plan_prune(opened, prune).apply()
    # A set knows nothing of it, but is made from what was pruned.
    opened.rename(opened.with_name("DATASET_IMGS"))
    (opened.with_name("SET")).mkdir()
    made = {**ask, "dataset": str(opened.with_name("SET")), "vectors": 8}
    assert client.post(V1 + "train/words", json=made).json()["text"] == "1girl blue eyes"
    assert client.post(V1 + "train/words", json={**ask, "dataset": "/elsewhere"}).status_code == 403


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


def test_a_run_that_was_moved_aside_can_be_read_but_not_acted_on(client, run, config):
    again = {**config, "overwrite": True, "vectors": 3}
    assert finish(client, client.post(V1 + "train/start", json={"config": again}).json()["job"])["state"] == "done"
    assert [item["name"] for item in client.get(V1 + "train/runs").json()["runs"]] == ["zorgle"]
    listed = client.get(V1 + "train/runs", params={"aside": "true"}).json()
    assert [item["name"] for item in listed["aside"]] == ["zorgle.old-1"] and len(listed["runs"]) == 1
    assert client.get(V1 + "train/run", params={"run": "zorgle.old-1"}).json()["config"]["vectors"] == 2
    for route in ("resume", "use", "continue"):
        assert client.post(f"{V1}train/{route}", json={"run": "zorgle.old-1", "step": 2}).status_code == 404


def test_an_embedding_to_start_from_tells_its_vectors(client, service, tmp_path):
    folder = service.host.folders.embeddings / "mine"
    save_pt(Embedding("rei", torch.ones(5, 80), step=7), tmp_path / "secret.pt")
    assert client.get(V1 + "train/embedding", params={"name": "rei"}).status_code == 400
    folder.mkdir(parents=True)
    (folder / "rei.bin").write_bytes((tmp_path / "secret.pt").read_bytes())
    (folder / "broken.png").write_bytes(b"no picture")
    found = client.get(V1 + "train/embedding", params={"name": "rei"}).json()
    assert found == {"file": "rei.bin", "vectors": 5, "width": 80, "step": 7}
    assert client.get(V1 + "train/embedding", params={"name": "broken"}).json()["error"]["remedy"]
    for name in (str(tmp_path / "secret.pt"), "../../secret.pt"):
        assert client.get(V1 + "train/embedding", params={"name": name}).status_code == 403


def test_a_template_of_the_hosts_folder_needs_no_opening(client, service, config):
    folder = service.host.folders.templates / "mine"
    folder.mkdir(parents=True)
    (folder / "style.txt").write_text("drawn like [name], [filewords]", encoding="utf-8")
    for file in ("mine/style.txt", "mine/style", str(folder / "style.txt")):
        facts = plan(client, {**config, "template_source": "file", "template_file": file})
        assert facts["prompts"] and all(prompt.startswith("drawn like zorgle, ") for prompt in facts["prompts"])
    unknown = plan(client, {**config, "template_source": "file", "template_file": "../mine/style.txt"})
    assert "one of: mine/style.txt" in unknown["prompts_problem"]
    small = {"template_source": "file", "template_file": "mine/style", "previews": [], "max_steps": 1}
    job = finish(client, client.post(V1 + "train/start", json={"config": {**config, **small}}).json()["job"])
    assert job["state"] == "done", job["error"]
    shown = client.get(V1 + "train/run", params={"run": "zorgle"}).json()["config"]
    assert shown["template"] == ["drawn like [name], [filewords]"]


@pytest.mark.parametrize(
    ("preview", "said"),
    [({"sampler": "Heun"}, "Euler a, Euler, DDIM, DPM++ 2M"), ({"scheduler": "Karras"}, "Leave it")],
)
def test_a_preview_that_the_host_cannot_make_is_refused_beforehand(client, config, preview, said):
    wrong = {**config, "previews": [*config["previews"], {"prompt": "a [name]", **preview}]}
    answer = client.post(V1 + "train/check", json={"config": wrong})
    assert answer.status_code == 400 and answer.json()["error"]["problem"].startswith("Preview 2 asks for the s")
    assert said in answer.json()["error"]["remedy"]
    job = finish(client, client.post(V1 + "train/start", json={"config": wrong}).json()["job"])
    assert job["state"] == "failed" and "Preview 2" in job["error"] and job["done"] == 0


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


def test_a_run_is_resumed_at_another_rate(client, run, service):
    assert run["data"]["learning_rate"] == "0.01"
    wish = {"run": "zorgle", "max_steps": 6, "learning_rate": " 0.001 "}
    job = finish(client, client.post(V1 + "train/resume", json=wish).json()["job"])
    assert (job["state"], job["done"], job["data"]["learning_rate"]) == ("done", 6, "0.001"), job["error"]
    with (service.host.folders.logs / "zorgle" / "losses.csv").open(newline="") as file:
        rates = {int(row["step"]): float(row["learning_rate"]) for row in csv.DictReader(file)}
    assert rates == {1: 0.01, 2: 0.01, 3: 0.01, 4: 0.01, 5: 0.001, 6: 0.001}
    assert client.get(V1 + "train/run", params={"run": "zorgle"}).json()["config"]["learning_rate"] == "0.001"
    refused = client.post(V1 + "train/resume", json={**wish, "max_steps": 8, "learning_rate": "fast"})
    assert refused.status_code == 400 and "fast" in refused.json()["error"]["problem"]


def test_a_preview_without_a_prompt_is_refused_with_a_sentence(client, service):
    going_on = threading.Event()
    job = service.host.jobs.start("Training zorgle", lambda job: going_on.wait(60))
    job.data["requests"] = 0
    try:
        answer = client.post(f"{V1}jobs/{job.id}/ask", json={"wish": "preview"})
        assert answer.status_code == 400 and "no preview prompt" in answer.json()["error"]["problem"]
        job.data["requests"] = 1
        assert client.post(f"{V1}jobs/{job.id}/ask", json={"wish": "preview"}).status_code == 200
    finally:
        going_on.set()


def test_a_step_is_used(client, run, service):
    published = service.host.folders.embeddings / "zorgle.safetensors"
    last = published.read_bytes()
    job = finish(client, client.post(V1 + "train/use", json={"run": "zorgle", "step": 2}).json()["job"])
    assert job["state"] == "done" and "step 2" in job["data"]["summary"], job
    assert load_embedding(published).step == 2 and published.read_bytes() != last
    job = finish(client, client.post(V1 + "train/use", json={"run": "zorgle", "step": 3}).json()["job"])
    assert "no preview of it" in job["error"]
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


def test_a_run_that_was_never_completed_is_not_listed(client, run, service):
    shutil.copytree(service.host.folders.logs / "zorgle", service.host.folders.logs / ".zorgtwo.part")
    found = client.get(V1 + "train/runs?aside=true").json()
    assert [item["name"] for item in found["runs"]] == ["zorgle"] and found.get("aside", []) == []


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
    assert "mine" in read('{"version": 1, "help": "", "settings": {}, "mine": 1}').json()["error"]["problem"]
    for inner in ("settings", "config"):  # a preset, and the record of a run
        text = json.dumps({"version": 1, inner: {"vectors": 3}})
        assert read(text).json()["settings"] == {"vectors": 3}
        assert "version 2" in read(text.replace('"version": 1', '"version": 2')).json()["error"]["problem"]
        assert "vectros" in read(text.replace("vectors", "vectros")).json()["error"]["problem"]
    whole = json.dumps({"name": "a", "checkpoint": "b", "dataset": "c", "vectors": 5})
    assert RunConfig(**read(whole).json()["settings"]) == RunConfig("a", "b", "c", vectors=5)


def test_a_run_becomes_a_lora_whose_card_tells_of_it(client, run, service, config):
    job = finish(client, client.post(V1 + "train/lora", json={"run": "zorgle"}).json()["job"])
    assert job["state"] == "done" and "<lora:zorgle-lora:1> zorgle" in job["data"]["summary"], job
    made = service.host.folders.lora / "zorgle-lora.safetensors"
    told = read_header(made).metadata
    assert read_header(made).shapes == {"bundle_emb.zorgle.string_to_param.*": (2, 80)}
    assert told["ss_output_name"] == "zorgle-lora" and told["ss_clip_skip"] and told["ss_training_started_at"]
    assert len(told["ss_new_sd_model_hash"]) == 64 and "step 4" in told["ss_training_comment"]
    assert json.loads(told["ss_tag_frequency"]) and json.loads(told["ssmd_cover_images"])
    assert json.loads(made.with_suffix(".json").read_text())["activation text"] == "zorgle"
    again = finish(client, client.post(V1 + "train/lora", json={"run": "zorgle"}).json()["job"])
    assert again["state"] == "done" and made.with_name("zorgle-lora-2.safetensors").is_file()
