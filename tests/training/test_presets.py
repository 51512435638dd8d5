import json

import pytest

from lib_dsm import options
from lib_dsm.errors import InputError
from lib_dsm.training.config import RunConfig
from lib_dsm.training.presets import (
    BUILT_IN,
    NOT_IN_A_PRESET,
    delete_preset,
    list_presets,
    save_preset,
    settings_of_run,
)

MINE = RunConfig("zorgle", "model", "folder", vectors=3, output="out", overwrite=True, flip=0.25)


def settings(preset):
    """Its settings as the options have them."""
    config = options.from_json(
        RunConfig, {"name": "a", "checkpoint": "b", "dataset": "c", **preset.settings}, "settings"
    )
    return {name: getattr(config, name) for name in preset.settings}


@pytest.mark.parametrize("preset", BUILT_IN, ids=lambda preset: preset.name)
def test_what_comes_with_the_program_makes_valid_settings(preset):
    config = RunConfig("zorgle", "model", "folder", **settings(preset))
    assert {name: options.to_json(config)[name] for name in preset.settings} == dict(preset.settings)
    assert not preset.settings.keys() & NOT_IN_A_PRESET


def test_the_guides_character_settings():
    preset = next(preset for preset in BUILT_IN if preset.name == "Guide: character")
    config = RunConfig("zorgle", "model", "folder", **settings(preset))
    assert (config.vectors, config.batch_size, config.gradient_accumulation, config.max_steps) == (16, 1, 5, 5000)
    assert (config.save_every, config.preview_every, config.shuffle_tags) == (250, 250, True)
    assert (config.latent_sampling, config.variable_aspect) == ("deterministic", True)
    assert config.learning_rate == "0.0005:5000, 0.0001:10000"
    assert config.validation_share == 0.1  # the one thing that is not the guide's, and its help says so
    assert "held out" in preset.help


def test_saved_listed_found_and_deleted(tmp_path):
    folder = tmp_path / "presets"
    saved = save_preset(folder, "My own", {"vectors": 3, "flip": 0.25}, "for eyes")
    assert list_presets(folder) == ([*BUILT_IN, saved], [])
    assert saved.own and saved.help == "for eyes" and saved.settings == {"vectors": 3, "flip": 0.25}
    replaced = save_preset(folder, "My own", {"vectors": 5})
    assert list_presets(folder) == ([*BUILT_IN, replaced], []) and replaced.settings == {"vectors": 5}
    delete_preset(folder, "My own")
    assert list_presets(folder) == (list(BUILT_IN), [])
    with pytest.raises(InputError, match="My own"):
        delete_preset(folder, "My own")


def test_all_settings_of_a_form_can_be_saved_and_name_nothing_of_the_run(tmp_path):
    saved = save_preset(tmp_path, "All", options.to_json(MINE))
    assert not saved.settings.keys() & NOT_IN_A_PRESET
    assert saved.settings.keys() | NOT_IN_A_PRESET == options.specs(RunConfig).keys()
    assert list_presets(tmp_path) == ([*BUILT_IN, saved], [])


def test_the_given_ones_stay(tmp_path):
    for name in ("Quick trial", "quick TRIAL"):
        with pytest.raises(InputError, match="comes with the program"):
            save_preset(tmp_path, name, {})
    with pytest.raises(InputError, match="comes with the program"):
        delete_preset(tmp_path, "Quick trial")


@pytest.mark.parametrize("name", ["../out", "a/b", "", ".hidden"])
def test_a_name_cannot_lead_elsewhere(tmp_path, name):
    folder = tmp_path / "presets"
    for act in (delete_preset, lambda *args: save_preset(*args, {})):
        with pytest.raises(InputError):
            act(folder, name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ("{", "not valid JSON"),
        ("[]", "not a preset"),
        ({"version": 2, "settings": {}}, "version 2"),
        ({"version": 1, "settings": {}, "colour": 1}, '"colour"'),
        ({"version": 1, "settings": {"vectros": 3}}, '"vectros"'),
        ({"version": 1, "settings": {"vectors": 300}}, "300"),
    ],
)
def test_a_file_that_cannot_be_used_is_said_and_hides_no_other(tmp_path, content, word):
    (tmp_path / "bad.json").write_text(content if isinstance(content, str) else json.dumps(content))
    good = save_preset(tmp_path, "good", {"vectors": 2})
    presets, problems = list_presets(tmp_path)
    assert presets == [*BUILT_IN, good] and len(problems) == 1 and word in problems[0]


def test_unknown_keys_are_refused_when_saving(tmp_path):
    with pytest.raises(InputError, match='"vectros"'):
        save_preset(tmp_path, "mine", {"vectros": 3})
    assert list(tmp_path.iterdir()) == []


def test_a_past_runs_settings_come_back(tmp_path):
    record = {"version": 1, "config": options.to_json(MINE)}
    (tmp_path / "run.json").write_text(json.dumps(record))
    assert settings_of_run(tmp_path) == MINE
    # A run of an earlier version knew fewer options.
    for name in ("flip", "schedule", "norm_control"):
        record["config"].pop(name)
    (tmp_path / "run.json").write_text(json.dumps(record))
    assert settings_of_run(tmp_path).flip == 0.0
    with pytest.raises(InputError, match="not the folder of a run"):
        settings_of_run(tmp_path / "none")
