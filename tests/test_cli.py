"""The command line."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageFilter
from safetensors.torch import load_file, save_file

from lib_dsm import options
from lib_dsm.cli.main import main
from lib_dsm.cli.progress import _new_lines, describe
from lib_dsm.cli.training_commands import _setting
from lib_dsm.demo.install import CHECKPOINT, TAGGER
from lib_dsm.errors import InputError
from lib_dsm.jobs import Job
from lib_dsm.networks.hypernetwork import Hypernetwork, facts_of, save_pt
from lib_dsm.networks.hypernetwork_modules import Pairs, initialise
from lib_dsm.networks.hypernetwork_structure import Structure
from lib_dsm.training.config import read_config
from tests.cropping.test_cleaning import drawing

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def folder(tmp_path) -> Path:
    """Three pictures with captions."""
    for name, caption in {"a": "1girl, blue eyes, hat", "b": "1girl, blue eyes", "c": "1girl, smile"}.items():
        Image.new("RGB", (96, 64), "teal").save(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.txt").write_text(caption, encoding="utf-8")
    return tmp_path


def data(capsys, *arguments: object) -> dict:
    assert main([*map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_new_makes_a_project(capsys, tmp_path):
    assert data(capsys, "new", tmp_path / "x")["project"] == str(tmp_path / "x")
    assert (tmp_path / "x" / "SET").is_dir()


def test_queries_history_and_metadata(capsys, folder, tmp_path):
    assert data(capsys, "tags", folder, "--where", "tags >= 3")["tags"] == {"1girl": 1, "blue eyes": 1, "hat": 1}
    assert data(capsys, "prune", folder, "--replace", r"hat=oh\, hat", "--add", "n", "--add-at", "1")["changed"] == 3
    assert (folder / "a.txt").read_text() == r"n, 1girl, blue eyes, oh\, hat"
    assert data(capsys, "prune", folder, "--character", "--preset", "features", "--share", "50%")["changed"] == 2
    assert data(capsys, "history", folder, "--act", "2")["changes"][0]["after"] == ["n", "1girl", r"oh\, hat"]
    assert len(data(capsys, "undo", folder, "--to", "0")["acts"]) == 2
    assert (folder / "a.txt").read_text() == "1girl, blue eyes, hat"
    assert [act["state"] for act in data(capsys, "history", folder)["acts"]] == ["undone", "undone"]
    file = tmp_path / "meta.json"
    assert data(capsys, "metadata", folder, "--out", file, "--stems")["captions"] == 3
    (folder / "a.txt").write_text("other")
    assert data(capsys, "metadata", folder, "--in", file, "--dry-run")["changes"] == 1
    assert data(capsys, "metadata", folder, "--in", file)["changed"] == 1
    assert (folder / "a.txt").read_text() == "1girl, blue eyes, hat"


def test_tags_prune_undo_history(capsys, folder):
    assert data(capsys, "tags", folder)["tags"] == {"1girl": 3, "blue eyes": 2, "hat": 1, "smile": 1}
    assert data(capsys, "tags", folder, "--where", "NOT hat")["tags"] == {"1girl": 2, "blue eyes": 1, "smile": 1}
    assert data(capsys, "prune", folder, "--remove", "blue eyes, smile", "--dry-run")["changes"] == 3
    assert (folder / "a.txt").read_text() == "1girl, blue eyes, hat"
    assert (
        data(capsys, "prune", folder, "--remove", "blue eyes", "--where", "hat", "--add", "x", "--add", "y")["changed"]
        == 1
    )
    assert (folder / "a.txt").read_text() == "1girl, hat, x, y"
    assert data(capsys, "history", folder)["acts"][0]["state"] == "done"
    assert data(capsys, "undo", folder)["changed"] == 1
    assert (folder / "a.txt").read_text() == "1girl, blue eyes, hat"
    assert data(capsys, "redo", folder)["changed"] == 1
    assert data(capsys, "undo", folder)["changed"] == 1
    assert data(capsys, "prune", folder, "--character")["changed"] == 2
    assert (folder / "b.txt").read_text() == "1girl"


def test_crop_by_options_and_by_plan(capsys, folder, tmp_path):
    made = data(
        capsys, "crop", folder, "--out", tmp_path / "out", "--size", "64x64", "--mode", "pad", "--color", "white"
    )
    assert len(made["written"]) == 3
    with Image.open(tmp_path / "out" / "a.png") as crop:
        assert crop.size in ((96, 96), (64, 64))
    plan = tmp_path / "plan.json"
    assert data(capsys, "crop", folder, "--out", tmp_path / "two", "--save-plan", plan)["crops"] == 3
    assert not (tmp_path / "two").exists()
    assert len(data(capsys, "crop", folder, "--out", tmp_path / "two", "--plan", plan)["written"]) == 3


def test_tag(capsys, folder):
    (folder / "a.txt").unlink()
    made = data(capsys, "tag", folder, "--model", TAGGER, "--threshold", "0.1")
    assert ([Path(path).name for path in made["written"]], len(made["skipped"])) == (["a.png"], 2)


def test_tag_says_what_it_would_do_and_does_not(capsys, folder):
    before = {path.name: path.read_bytes() for path in folder.glob("*.txt")}
    call = ("tag", folder, "--model", TAGGER, "--threshold", "0.1", "--on-existing", "append", "--dry-run")
    made = data(capsys, *call)
    assert made["dry_run"] and made["written"] == [] and len(made["changes"]) == 3
    assert {path.name: path.read_bytes() for path in folder.glob("*.txt")} == before
    assert main([str(word) for word in call]) == 0
    said = capsys.readouterr().out
    assert "3 captions would change" in said and f"a.png: +{made['changes'][0]['added'][0]}" in said


def test_tag_looks_at_one_picture(capsys, folder):
    found = data(capsys, "tag", folder / "a.png", "--model", TAGGER, "--threshold", "0.1")
    assert found["rating"] in found["ratings"] and found["tags"]
    assert set(found["scores"]) <= set(found["general"]) | set(found["character"])


def test_each_failure_and_note_is_told_once_with_its_own_file(capsys, folder):
    for name in ("x.jpg", "y.jpg"):
        (folder / name).write_text("no picture", encoding="utf-8")
    (folder / "a.txt").write_bytes("髪".encode("cp932"))
    bad = [str(folder / "x.jpg"), str(folder / "y.jpg")]
    call = ["tag", str(folder), "--model", str(TAGGER), "--on-existing", "append"]
    assert main(call) == 0
    said = capsys.readouterr()
    assert [(said.out + said.err).count(path) for path in bad] == [1, 1]
    assert said.out.count("Shift-JIS") == 1
    (folder / "a.txt").write_bytes("髪".encode("cp932"))
    made = data(capsys, *call)
    assert [item["path"] for item in made["failed"]] == bad
    assert "Shift-JIS" in made["notes"][0]["text"]
    call = ["crop", str(folder), "--out", str(folder / "out")]
    assert [item["path"] for item in data(capsys, *call)["failed"]] == bad
    assert main(call) == 0
    said = capsys.readouterr()
    assert [(said.out + said.err).count(path) for path in bad] == [1, 1]


def test_captions_that_cannot_be_read_are_told(capsys, folder):
    (folder / "b.txt").write_bytes(b"\0")
    (folder / "c.txt").unlink()
    for call in (["tags"], ["prune", "--remove", "none", "--dry-run"], ["prune", "--remove", "hat"]):
        command = [call[0], str(folder), *call[1:]]
        assert any("not text" in note["text"] for note in data(capsys, *command)["notes"])
        assert main(command) == 0
        said = capsys.readouterr().out
        assert said.count("not text") == 1 and "b.png" in said and "c.png" not in said


def test_a_trace_is_shown_only_on_request(folder):
    call = [sys.executable, "-c", (
        "import sys; from lib_dsm.pruning import prune; from lib_dsm.cli.main import main; "
        "prune.apply = lambda *_: 1 / 0; sys.exit(main(sys.argv[1:]))"
    ), "prune", str(folder), "--remove", "hat"]  # fmt: skip
    quiet = subprocess.run(call, cwd=ROOT, capture_output=True, text=True)
    assert quiet.returncode == 1 and quiet.stderr.startswith("dsm: ") and quiet.stderr.count("\n") == 1
    told = subprocess.run([*call, "--verbose"], cwd=ROOT, capture_output=True, text=True)
    assert told.returncode == 1 and told.stderr.count("Traceback") == 1


def test_check_and_train_and_bundle_and_inspect(capsys, run_config, tmp_path, monkeypatch):
    settings = tmp_path / "RUN.json"
    config = dataclasses.replace(run_config(), output="runs")
    settings.write_text(json.dumps(options.to_json(config)), encoding="utf-8")
    where = ("--data", tmp_path / "studio")
    assert data(capsys, "check", settings, *where)["may_start"] is True
    assert main(["check", str(settings), "--set", 'template=["no name"]', *map(str, where)]) == 1
    said = capsys.readouterr().out
    assert "template-without-name" in said and "checks passed" in said
    remedy = shlex.split(next(line for line in said.splitlines() if "template=" in line).partition("apply it: ")[2])
    assert main(["check", str(settings), "--set", 'template=["no name"]', *remedy, *map(str, where)]) == 0
    assert "template-without-name" not in capsys.readouterr().out
    made = data(capsys, "train", settings, "--set", "max_steps=2", *where)
    assert (made["step"], made["stopped"]) == (2, False)
    assert (tmp_path / "runs" / "zorgle.safetensors").is_file()
    assert main(["train", str(settings), *map(str, where)]) == 1
    assert "zorgle" in capsys.readouterr().err
    assert data(capsys, "train", settings, "--resume", *where)["step"] == 4
    # What a run was started with is in its record, which can be given as well.
    record = tmp_path / "runs" / "zorgle" / "run.json"
    assert data(capsys, "check", record, "--set", "name=zorgletwo", *where)["may_start"] is True
    assert data(capsys, "train", record, "--resume", "--set", "max_steps=5", *where)["step"] == 5
    sampler = 'previews=[{"prompt": "[name]", "sampler": "Heun"}]'
    assert main(["check", str(record), "--resume", "--set", sampler, *map(str, where)]) == 1
    assert 'Preview 1 asks for the sampler "Heun"' in capsys.readouterr().err
    lora = data(capsys, "extract", "embedding", tmp_path / "runs" / "zorgle.pt", "--out", tmp_path / "z.safetensors")
    assert lora["prompt"] == "<lora:z:1> zorgle"
    assert data(capsys, "inspect", tmp_path / "z.safetensors")["kind"] == "lora"


def test_a_hypernetworks_lora_is_drawn_beside_it(capsys, tmp_path):
    structure = Structure(widths=(80,), layers=(1.0, 2.0, 1.0))
    pairs = Pairs.empty(structure)
    initialise(pairs, "Normal", 0.1, 1)
    save_pt(Hypernetwork(pairs.tensors(), facts_of(structure, "h", 1, "Normal")), tmp_path / "h.pt")
    (tmp_path / "a.txt").write_text("solo, red hair", encoding="utf-8")
    command = [
        "extract",
        "hypernetwork",
        tmp_path / "h.pt",
        "--base",
        CHECKPOINT,
        "--out",
        tmp_path / "made.safetensors",
    ]
    how = ["--previews", 2, "--preview-steps", 2, "--preview-cfg", 2]
    (tmp_path / "made.safetensors").write_bytes(b"mine")
    assert main([*map(str, command)]) == 1
    assert "exists already" in capsys.readouterr().err
    (tmp_path / "made.safetensors").unlink()
    made = data(capsys, *command, *how, "--captions", tmp_path)
    assert json.loads((tmp_path / "made.json").read_text()) == {"sd version": "SD1"}
    drawn = made["pictures"]
    assert drawn["columns"] == ["base", "hypernetwork", "base + LoRA"] and Path(drawn["sheet"]).is_file()
    assert [row["prompt"] for row in drawn["rows"]] == ["solo, red hair"] * 2
    assert made["exact"] and drawn["left"] < 0.05 * drawn["apart"]
    again = data(capsys, *command, *how, "--prompt", "smile, hat", "--overwrite")
    assert [row["prompt"] for row in again["pictures"]["rows"]] == ["smile, hat"] * 2


def test_create_needs_no_pictures_and_overwrites_only_what_it_wrote(capsys, run_config, tmp_path):
    settings = tmp_path / "RUN.json"
    values = options.to_json(dataclasses.replace(run_config(), output="out"))
    del values["dataset"]
    settings.write_text(json.dumps(values), encoding="utf-8")
    call = ("create", settings, "--data", tmp_path / "studio")
    made = data(capsys, *call)
    assert [Path(path).parent.name for path in made["files"]] == ["out", "out"]
    assert Path(made["published"]) == tmp_path / "studio" / "embeddings" / "zorgle.safetensors"
    assert data(capsys, *call, "--set", "vectors=2")["kept"] == []
    (tmp_path / "out" / "zorgle.pt").write_bytes(b"mine")
    assert main([*map(str, call)]) == 1
    assert "zorgle.pt already" in capsys.readouterr().err
    assert len(data(capsys, *call, "--set", "overwrite=true")["kept"]) == 1


def test_a_hypernetwork_is_created_checked_trained_and_inspected(capsys, run_config, tmp_path):
    settings = tmp_path / "RUN.json"
    given = {"kind": "hypernetwork", "name": "ink", "checkpoint": "micro", "dataset": run_config().dataset}
    small = {"max_steps": 2, "width": 64, "height": 64, "preview_every": 0, "validate_every": 0, "output": "out"}
    settings.write_text(json.dumps({**given, **small, "layer_structure": [1, 1.5, 1]}), encoding="utf-8")
    where = ("--data", tmp_path / "studio")
    # What the file does not name begins as is fit for the kind, and not as for embeddings.
    assert read_config(settings).learning_rate == "0.00001" and read_config(settings).template == ("[filewords]",)
    made = data(capsys, "create", settings, *where)
    assert Path(made["published"]) == tmp_path / "studio" / "hypernetworks" / "ink.pt"
    assert data(capsys, "check", settings, *where)["may_start"] is True
    assert main(["check", str(settings), "--set", "learning_rate=0.005", *map(str, where)]) == 1
    assert "hyper-rate" in capsys.readouterr().out
    assert data(capsys, "train", settings, *where)["step"] == 2
    found = data(capsys, "inspect", tmp_path / "out" / "ink.pt")
    assert (found["kind"], found["step"], found["layer_structure"]) == ("hypernetwork", 2, [1, 1.5, 1])


@pytest.mark.parametrize(
    ("setting", "key", "value"),
    [
        ("learning_rate=0.005", "learning_rate", "0.005"),
        ("learning_rate=1e-4", "learning_rate", "1e-4"),
        ("learning_rate=0.0050", "learning_rate", "0.0050"),
        ("learning_rate=0.01:5, 0.001", "learning_rate", "0.01:5, 0.001"),
        ("name=123", "name", "123"),
        ("name=007", "name", "007"),
        ('name="7e3"', "name", "7e3"),
        ("init_text=1", "init_text", "1"),
        ("init_text= 1 ", "init_text", "1"),
        ("max_steps=7", "max_steps", 7),
        ("flip=0.5", "flip", 0.5),
        ("enlarge=true", "enlarge", True),
    ],
)
def test_a_setting_on_the_command_line_keeps_its_digits(run_config, tmp_path, setting, key, value):
    settings = tmp_path / "RUN.json"
    settings.write_text(json.dumps(options.to_json(run_config())), encoding="utf-8")
    assert getattr(read_config(settings, dict([_setting(setting)])), key) == value


def test_a_rate_in_a_settings_file_may_be_a_number(run_config, tmp_path):
    settings = tmp_path / "RUN.json"
    settings.write_text(json.dumps({**options.to_json(run_config()), "learning_rate": 0.005}), encoding="utf-8")
    assert read_config(settings).learning_rate == "0.005"


def test_a_fit_is_captured_at_the_clip_skip_after_the_name_was_checked(capsys, tmp_path, monkeypatch):
    structure = Structure(widths=(80,), layers=(1.0, 2.0, 1.0), activation="relu")
    pairs = Pairs.empty(structure)
    initialise(pairs, "Normal", 0.1, 1)
    save_pt(Hypernetwork(pairs.tensors(), facts_of(structure, "h", 1, "Normal")), tmp_path / "h.pt")
    seen = []

    def captured(host, file, base, captions, job, clip_skip=1):
        seen.append(clip_skip)
        raise InputError("Enough.")

    monkeypatch.setattr("lib_dsm.host.capturing.captured_contexts", captured)
    out = tmp_path / "made.safetensors"
    command = ["extract", "hypernetwork", tmp_path / "h.pt", "--base", CHECKPOINT, "--out", out, "--clip-skip", 2]
    assert main([*map(str, command)]) == 1 and seen == [2]
    out.write_bytes(b"mine")
    assert main([*map(str, command)]) == 1 and seen == [2]
    assert "exists already" in capsys.readouterr().err


def test_a_lora_is_edited_told_once_and_has_a_sidecar(capsys, tmp_path):
    module = "lora_unet_mid_block_attentions_0_proj_in"
    lora = {f"{module}.lora_up.weight": torch.ones(4, 1), f"{module}.lora_down.weight": torch.ones(1, 4)}
    save_file(lora, tmp_path / "a.safetensors")
    command = ["extract", "lora", f"{tmp_path / 'a.safetensors'}=0.5", "--out", tmp_path / "o.safetensors"]
    assert main([*map(str, command)]) == 0
    said = capsys.readouterr()
    assert (said.out + said.err).count("holds 1 modules") == 1
    assert json.loads((tmp_path / "o.json").read_text()) == {"sd version": "SD1"}
    assert main(["extract", "lora", f"{tmp_path / 'a.safetensors'}=nan", "--out", str(tmp_path / "p.safetensors")]) == 1
    assert "nan" in capsys.readouterr().err
    for call, words in ((["extract", "--help"], ["merge", "resize", "compare"]), (["--help"], ["merge", "compare"])):
        assert main(call) == 0
        help_text = capsys.readouterr().out
        assert all(word in help_text for word in words)


def test_a_survey_needs_no_file_to_write(capsys, tmp_path):
    tensors = load_file(CHECKPOINT)
    key = next(key for key in tensors if key.endswith("attn2.to_v.weight"))
    tensors[key] = tensors[key].roll(1, 0)
    save_file(tensors, tmp_path / "tuned.safetensors")
    command = ["extract", "checkpoint", "--base", CHECKPOINT, "--tuned", tmp_path / "tuned.safetensors"]
    assert len(data(capsys, *command, "--survey")["outlooks"]) > 1
    assert main([*map(str, command)]) == 1
    assert "--out" in capsys.readouterr().err
    assert main([*map(str, command), "--out", str(tmp_path / "o.safetensors")]) == 0
    said = capsys.readouterr()
    assert (said.out + said.err).count("holds 1 layers") == 1  # the report is told once


def test_extract_checkpoint_refuses_equal_ones(capsys, tmp_path):
    call = [
        "extract",
        "checkpoint",
        "--base",
        str(CHECKPOINT),
        "--tuned",
        str(CHECKPOINT),
        "--out",
        str(tmp_path / "x.safetensors"),
    ]
    assert main(call) == 1
    assert "nothing to extract" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["tags", "/nowhere"], 1), (["inspect", "/nowhere"], 1), (["undo", "{folder}"], 1), (["prune", "{folder}"], 1),
        (["check", "/nowhere.json"], 1), (["tags", "{folder}", "--where", "("], 1),
        (["studio", "--port", "0", "--project", "/nowhere"], 1), (["new", ""], 2), (["tags", " "], 2),
        (["demo", "--steps", "0"], 2), (["demo", "--steps", "-5"], 2), (["demo", "--steps", "x"], 2),
        ([], 2), (["dance"], 2), (["tags"], 2), (["tag", "{folder}", "--threshold", "2"], 2),
        (["tag", "{folder}", "--sort", "never"], 2), (["crop", "{folder}"], 2),
        (["--help"], 0), (["train", "--help"], 0),
        *(([command, "a" * 300], 1) for command in ("tags", "tag", "inspect", "check", "undo", "new")),
        (["create"], 2), (["create", "/nowhere.json"], 1), (["create", "x.json", "--resume"], 2),
    ],
)  # fmt: skip
def test_exit_codes_and_one_line_of_error(capsys, folder, arguments, code):
    assert main([argument.format(folder=folder) for argument in arguments]) == code
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    if code == 1:
        assert said.err.startswith("dsm: ") and said.err.count("\n") == 1


def test_the_flags_are_those_of_the_options(capsys, folder):
    from lib_dsm.tagging.options import TagOptions

    main(["tag", "--help"])
    text = capsys.readouterr().out
    assert all("--" + name.replace("_", "-") in text for name in options.specs(TagOptions))


@pytest.mark.skipif(os.name == "nt", reason="no such signal there")
def test_ctrl_c_saves_and_can_be_resumed(run_config, tmp_path):
    settings = tmp_path / "RUN.json"
    config = run_config(max_steps=100_000, save_every=0)
    settings.write_text(json.dumps(options.to_json(config)), encoding="utf-8")
    call = [sys.executable, "-m", "lib_dsm", "train", str(settings), "--data", str(tmp_path / "studio"), "--json"]
    with subprocess.Popen(call, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        losses = Path(config.output) / "zorgle" / "losses.csv"
        for _ in range(1200):
            if losses.is_file() and losses.read_text().count("\n") > 2:
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        made = json.loads(process.communicate(timeout=60)[0])
    assert process.returncode == 130
    assert made["stopped"] is True and made["step"] >= 1
    assert (
        main(
            [
                "train",
                str(settings),
                "--resume",
                "--set",
                f"max_steps={made['step'] + 1}",
                "--data",
                str(tmp_path / "s"),
            ]
        )
        == 0
    )


def test_the_bar_tells_what_is_known():
    job = Job("Cropping", "pictures")
    assert describe(job.snapshot()) == "Cropping"
    job.progress(6, 12, "a.png")
    assert "6/12 pictures" in describe(job.snapshot()) and "████████████░" in describe(job.snapshot())


def test_log_lines_are_told_once():
    assert _new_lines(["a", "b"], ["a", "b", "c"]) == ["c"]
    assert _new_lines(["a", "b", "c"], ["b", "c", "d"]) == ["d"]
    assert _new_lines(["a"], ["a"]) == []
    assert _new_lines([], ["a"]) == ["a"]


def test_clean_sets_aside_what_is_asked_for(capsys, tmp_path):
    drawing(1, (240, 200)).save(tmp_path / "whole.png")
    drawing(1, (240, 200)).resize((120, 100)).save(tmp_path / "copy.png")
    drawing(2, (240, 200)).filter(ImageFilter.GaussianBlur(9)).save(tmp_path / "soft.png")
    drawing(3, (640, 480)).save(tmp_path / "good.png")
    call = ["clean", str(tmp_path), "--small", "384", "--aside"]
    assert main([*call, "duplicate,fuzzy"]) == 2
    assert '"fuzzy" is none of duplicate, blurred' in capsys.readouterr().err
    # whole.png is too small as well, but the only one left of two
    made = data(capsys, *call, "duplicate,blurred", "--aside", "small")
    assert (made["aside"], made["stay"]) == (["copy.png", "soft.png"], ["whole.png"])
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["good.png", "whole.png"]
    assert data(capsys, "undo", tmp_path) and len(list(tmp_path.glob("*.png"))) == 4
    assert main([*call, "small,duplicate"]) == 0
    said = capsys.readouterr().out
    assert "whole.png stays: a duplicate of it is set aside." in said and "3 of 4 pictures are worth a look." in said


def test_clean_never_empties_a_folder(capsys, tmp_path):
    for number in range(2):
        drawing(number, (240, 200)).save(tmp_path / f"{number}.png")
    assert main(["clean", "--aside", "small", str(tmp_path)]) == 1
    assert f"All pictures of {tmp_path} would be set aside. Name fewer kinds" in capsys.readouterr().err
    assert len(list(tmp_path.glob("*.png"))) == 2
    assert main(["clean", "--small", "16", str(tmp_path)]) == 0
    assert capsys.readouterr().out.endswith("Nothing is wrong with the 2 pictures.\n")


@pytest.mark.parametrize("how", [["--mode", "center"], ["--mode", "auto", "--plan", "{plan}"]])
def test_a_detector_that_is_not_needed_is_not_fetched(capsys, folder, tmp_path, monkeypatch, how):
    def fetch(*_):
        raise AssertionError("fetched")

    monkeypatch.setattr("lib_dsm.cropping.known_detectors.fetch_detector", fetch)
    plan = tmp_path / "plan.json"
    call = ["crop", str(folder), "--out", str(tmp_path / "out"), "--size", "64x64"]
    assert main([*call, "--save-plan", str(plan), "--detector", "yunet"]) == 0
    assert "The detector yunet is not used: mode center looks for nothing." in capsys.readouterr().out
    assert main([*call, *(word.format(plan=plan) for word in how), "--detector", "yunet"]) == 0
    said = capsys.readouterr().out
    assert said.count("The detector yunet is not used: ") == 1 and "3 written" in said
    assert main([*call, "--mode", "auto", "--detector", "yunet"]) == 1
    assert "AssertionError: fetched" in capsys.readouterr().err


def test_taking_crops_back_needs_no_pictures(capsys, folder, tmp_path):
    out = tmp_path / "out"
    assert main(["crop", "--out", str(out)]) == 1
    assert "There is no folder of pictures to crop. Name it" in capsys.readouterr().err
    assert len(data(capsys, "crop", folder, "--out", out)["written"]) == 3
    assert main(["crop", "--out", str(out), "--undo"]) == 0
    assert capsys.readouterr().out == "take back 3 crops: 6 files moved.\n" and not list(out.glob("*.png"))


def test_help_says_what_happens(capsys):
    assert main(["crop", "--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "center keeps the middle" in said and "of others the middle is kept" in said
    assert "the studio's folder with detectors" in said and "middle out" not in said
    assert main(["clean", "--help"]) == 0
    assert "with commas or repeated, of duplicate, blurred" in " ".join(capsys.readouterr().out.split())
