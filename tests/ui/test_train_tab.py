"""The form of the Train tab: nothing is missing, and its scripts know the fields as gradio has them."""

from __future__ import annotations

import html
import json
import re

import pytest

from lib_dsm import options
from lib_dsm.api.service import Service
from lib_dsm.training.config import (
    EMBEDDING_ONLY,
    HYPERNETWORK_DEFAULTS,
    HYPERNETWORK_ONLY,
    PreviewRequest,
    RunConfig,
)

pytest.importorskip("gradio")
from lib_dsm.ui import tabs, train_groups
from lib_dsm.ui.train_groups import ESSENTIAL, GROUPS, NOT_ASKED, ONLY_WITH, groups_of

SPECS = options.specs(RunConfig)


@pytest.fixture
def page(studio):
    return tabs.build(Service(studio), "token")


def known_to_the_scripts(page, what: str) -> list:
    """A list that the place of the form carries for its script."""
    place = next(block.value for block in page.blocks.values() if block.elem_id == "dsm_train_fields")
    return json.loads(html.unescape(re.search(f'data-{what}="(.*?)"', place)[1]))


def test_every_setting_of_a_run_is_asked_for_once(page):
    ids = [block.elem_id for block in page.blocks.values() if block.elem_id]
    for name in SPECS:
        count = ids.count(f"dsm_train_{name}")
        # The checkpoint has a list of its own; where a program may write is not for the page to say.
        assert count == (name not in NOT_ASKED or name == "checkpoint"), name
    assert not NOT_ASKED - SPECS.keys()


def test_every_setting_has_its_subject():
    named = [name for group in GROUPS for name in group.options]
    assert len(named) == len(set(named)) and not {*named} & {*ESSENTIAL}
    assert {*named, *ESSENTIAL} | NOT_ASKED == SPECS.keys()
    assert train_groups.OTHERS not in groups_of(SPECS)


def test_a_setting_without_a_subject_is_shown_all_the_same():
    assert "brand_new" in groups_of([*SPECS, "brand_new"])[train_groups.OTHERS]


@pytest.mark.parametrize("name", ONLY_WITH)
def test_what_acts_only_with_another_setting_names_values_that_it_can_have(name):
    other, values = ONLY_WITH[name]
    assert name in SPECS and values
    for value in values:
        options.check(SPECS[other], value)


def test_the_scripts_know_the_fields_in_gradios_order(page):
    names = [field["name"] for field in known_to_the_scripts(page, "fields")]
    handlers = [
        fn for fn in page.fns.values() if "DSM.train.gathered" in str(fn.js) or "DSM.train.filled" in str(fn.js)
    ]
    assert len(handlers) == 2
    for handler in handlers:
        assert [block.elem_id.removeprefix("dsm_train_") for block in handler.inputs] == names
        assert [block.elem_id for block in handler.outputs] in ([], [block.elem_id for block in handler.inputs])


def test_the_form_begins_with_the_defaults(page):
    for field in known_to_the_scripts(page, "fields"):
        name, initial = field["name"], field["initial"]
        if field["kind"] == "place" or name == "name":
            continue
        separator = {"lines": "\n", "list": ", "}.get(field["kind"])
        value = initial.split(separator) if separator and initial else initial
        value = () if separator and not initial else value
        assert options.check(SPECS[name], value) == SPECS[name].default, name


def test_previews_can_be_asked_for_in_every_way(page):
    known = {field["name"]: field for field in known_to_the_scripts(page, "requests")}
    assert list(known) == list(options.specs(PreviewRequest))
    assert known["sampler"]["choices"] and known["seed"]["kind"] == "number" and known["prompt"]["kind"] == "text"
    first = known_to_the_scripts(page, "previews")
    assert tuple(options.from_json(PreviewRequest, request) for request in first) == SPECS["previews"].default


def test_what_there_is_to_choose_from_is_looked_for_again(studio):
    page = tabs.build(Service(studio), "token")
    studio.folders.embeddings.mkdir(parents=True)
    (studio.folders.embeddings / "rei.png").write_bytes(b"")
    studio.folders.hypernetworks.mkdir()
    (studio.folders.hypernetworks / "ink.pt").write_bytes(b"")
    studio.folders.templates.mkdir()
    (studio.folders.templates / "mine.txt").write_text("[name]")
    listed = [f"dsm_train_{name}" for name in ("checkpoint", "init_embedding", "template_file", "init_hypernetwork")]
    found = [fn for fn in page.fns.values() if [block.elem_id for block in fn.outputs] == listed]
    assert len(found) == 4  # a button beside each of the lists
    assert [update["choices"] for update in found[0].fn()][1:] == [["", "rei"], ["", "mine.txt"], ["", "ink"]]


def test_the_hosts_samplers_are_offered(studio, monkeypatch):
    monkeypatch.setattr(studio, "samplers", lambda: ("Heun", "Euler a"))
    monkeypatch.setattr(studio, "schedulers", lambda: ("Karras",))
    page = tabs.build(Service(studio), "token")
    known = {field["name"]: field["choices"] for field in known_to_the_scripts(page, "requests")}
    assert (known["sampler"], known["scheduler"]) == (["Heun", "Euler a"], ["", "Karras"])


def test_the_hosts_clip_skip_is_where_the_form_begins(studio, monkeypatch):
    monkeypatch.setattr(studio, "default_clip_skip", lambda: 2)
    fields = known_to_the_scripts(tabs.build(Service(studio), "token"), "fields")
    assert {field["name"]: field["initial"] for field in fields}["clip_skip"] == 2


def test_what_only_one_kind_has_is_marked(page):
    of = {field["name"]: field.get("of") for field in known_to_the_scripts(page, "fields")}
    assert {name for name, kind in of.items() if kind == "embedding"} == EMBEDDING_ONLY & of.keys()
    assert {name for name, kind in of.items() if kind == "hypernetwork"} == HYPERNETWORK_ONLY & of.keys()
    kinds = known_to_the_scripts(page, "kinds")
    assert kinds == {"embedding": {}, "hypernetwork": dict(HYPERNETWORK_DEFAULTS)}
    for name, value in kinds["hypernetwork"].items():
        options.check(SPECS[name], value)
