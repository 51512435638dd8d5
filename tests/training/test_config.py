import json

import pytest

from lib_dsm import options
from lib_dsm.errors import InputError
from lib_dsm.training.config import (
    EMBEDDING_ONLY,
    HYPERNETWORK_DEFAULTS,
    HYPERNETWORK_ONLY,
    RunConfig,
    read_config,
)


@pytest.fixture
def run_json(tmp_path):
    def write(**values):
        path = tmp_path / "RUN.json"
        path.write_text(json.dumps({"name": "zorgle", "checkpoint": "nai", "dataset": "set", **values}))
        return path

    return write


def test_paths_are_relative_to_the_file_and_names_stay_names(run_json, tmp_path):
    for name in ("mine.pt", "lines.txt"):
        (tmp_path / name).write_bytes(b"")
    config = read_config(run_json(init_embedding="mine.pt", template_file="lines.txt", output="runs"))
    assert config.init_embedding == str(tmp_path / "mine.pt")
    assert config.template_file == str(tmp_path / "lines.txt")
    assert (config.dataset, config.output) == (str(tmp_path / "set"), str(tmp_path / "runs"))
    assert config.checkpoint == "nai"
    assert read_config(run_json(init_embedding="asuka")).init_embedding == "asuka"
    assert read_config(run_json()).template_file == ""
    assert read_config(run_json(template_file="style.txt")).template_file == "style.txt"


def test_the_record_of_a_run_and_a_preset_are_read_too(tmp_path):
    config = RunConfig("zorgle", "nai", str(tmp_path), vectors=3)
    record = {"version": 1, "begun": "2024-01-01T00:00:00", "config": options.to_json(config), "host": "studio"}
    (tmp_path / "run.json").write_text(json.dumps(record))
    assert read_config(tmp_path / "run.json") == config
    assert read_config(tmp_path / "run.json", {"vectors": 4}).vectors == 4
    preset = {"version": 1, "help": "", "settings": {"vectors": 5, "template": ["a [name]"]}}
    (tmp_path / "mine.json").write_text(json.dumps(preset))
    what = {"name": "a", "checkpoint": "b", "dataset": str(tmp_path)}
    assert read_config(tmp_path / "mine.json", what) == RunConfig(**what, vectors=5, template=("a [name]",))
    with pytest.raises(InputError, match="dataset"):
        read_config(tmp_path / "mine.json", {"name": "a", "checkpoint": "b"})
    (tmp_path / "run.json").write_text(json.dumps({**record, "version": 2}))
    with pytest.raises(InputError, match=r"run\.json is of version 2"):
        read_config(tmp_path / "run.json")


def test_which_samplers_there_are_is_not_for_a_file_to_know(run_json):
    config = read_config(run_json(previews=[{"sampler": "Heun", "scheduler": "Karras"}]))
    assert (config.previews[0].sampler, config.previews[0].scheduler) == ("Heun", "Karras")


def test_a_file_from_before_an_option_was_known_means_its_default(run_json):
    assert read_config(run_json()) == RunConfig("zorgle", "nai", read_config(run_json()).dataset)


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"schedule": "linear"}, "cosine restarts"),
        ({"flip": 1.5}, "Flip chance is 1.5"),
        ({"cycle_length": 0}, "Cycle length"),
        ({"adam_beta1": 1.0}, "AdamW beta 1"),
        ({"clip_gradient": "max"}, "off, value, norm"),
        ({"clip_bound": 0}, "clipping bound"),
        ({"clip_bound": "0.1:5, 1:5"}, "does not come after 5"),
        ({"clip_bound": True}, "must be text"),
        ({"filename_regex": "("}, "no regular expression"),
        ({"filename_regex": "(a)(b)"}, "has 2 groups"),
        ({"latent_deviation": -1}, "Factor on the deviation"),
        ({"clip_norm": "0"}, 'gradient clipping is "0"'),
        ({"clip_norm": "nan"}, 'gradient clipping is "nan"'),
        ({"clip_norm": "two"}, 'gradient clipping is "two"'),
        ({"cycle_multiplier": 0.9}, "Cycle multiplier"),
        ({"cycle_decay": 0}, "Cycle decay"),
        (
            {"schedule": "cosine restarts", "warmup_repeat": "each cycle", "warmup_steps": 9, "cycle_length": 9},
            "takes 9 steps; a cycle has 9",
        ),
        ({"loss_weighting": "snr"}, "min-snr"),
        ({"timestep_max": 1000}, "Highest timestep is 1000, above 999"),
        ({"norm_decay": 2}, "Length decay"),
        ({"template_source": "subjects"}, "subject_filewords"),
        ({"shedule": "cosine"}, '"shedule"'),
        ({"width": 500}, "size 500×512 is no multiple of 8"),
        ({"previews": [{"width": 500}]}, "preview's size 500×512 is no multiple of 8"),
        ({"previews": [{"height": 513}]}, "preview's size 512×513 is no multiple of 8"),
    ],
)
def test_what_is_wrong_is_named(run_json, values, word):
    with pytest.raises(InputError, match=word):
        read_config(run_json(**values))


def test_numbers_of_earlier_versions_are_still_read(run_json):
    old = {"clip_bound": 0.25, "cycle_multiplier": 2, "cycle_decay": 0.1, "clip_gradient": "norm"}
    config = read_config(run_json(**old))
    assert (config.clip_bound, config.cycle_multiplier, config.clip_norm) == ("0.25", 2.0, "2")
    assert read_config(run_json(), {"learning_rate": 0.005, "clip_bound": 1}).learning_rate == "0.005"


def test_changes_from_the_command_line_are_text(run_json):
    config = read_config(run_json(), {"flip": "0.5", "alpha_loss": "yes", "warmup_steps": "20"})
    assert (config.flip, config.alpha_loss, config.warmup_steps) == (0.5, True, 20)


def test_every_option_says_what_it_is():
    for name, spec in options.specs(RunConfig).items():
        assert spec.help.endswith((".", ")")) and spec.help[0].isupper(), name
        if spec.minimum is not None and spec.maximum is not None:
            assert spec.minimum <= spec.default <= spec.maximum, name
        if spec.choices is not None:
            assert spec.default in spec.choices, name


def test_a_kind_has_defaults_of_its_own():
    given = {"name": "ink", "checkpoint": "c", "dataset": "d"}
    embedding = options.from_json(RunConfig, given)
    hyper = options.from_json(RunConfig, {**given, "kind": "hypernetwork"})
    assert (embedding.learning_rate, embedding.template) == ("0.0005:5000, 0.0001:10000", ("[filewords], [name]",))
    assert (hyper.learning_rate, hyper.template) == ("0.00001", ("[filewords]",))
    assert options.from_json(RunConfig, {**given, "kind": "hypernetwork", "learning_rate": "1"}).learning_rate == "1"
    assert options.from_json(RunConfig, options.to_json(hyper)) == hyper


def test_what_cannot_be_built_is_refused_for_a_hypernetwork_alone():
    given = {"name": "ink", "checkpoint": "c", "dataset": "d", "layer_structure": [1, 2]}
    assert options.from_json(RunConfig, given).kind == "embedding"
    with pytest.raises(InputError, match="begins and ends with 1"):
        options.from_json(RunConfig, {**given, "kind": "hypernetwork"})
    with pytest.raises(InputError, match=r'hypernetwork.s name "a<b" holds'):
        options.from_json(RunConfig, {"name": "a<b", "checkpoint": "c", "dataset": "d", "kind": "hypernetwork"})


def test_the_kinds_own_options_are_options(run_config):
    names = set(options.specs(RunConfig))
    assert names >= EMBEDDING_ONLY | HYPERNETWORK_ONLY | HYPERNETWORK_DEFAULTS.keys()
    assert not EMBEDDING_ONLY & HYPERNETWORK_ONLY
    built = run_config(kind="hypernetwork", dropout_structure=(0, 0, 0), upsample_linear=True).structure((8, 16))
    assert (built.widths, built.dropout, built.upsampling) == ((8, 16), (), "")
    assert run_config(kind="hypernetwork", widths=(16,)).structure((8, 16)).widths == (16,)
