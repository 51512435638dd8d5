"""The translations that come with the extension: all of the page is in them, and nothing that is not on it."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("gradio")
from lib_dsm.pruning.character import kind_of
from tests.ui import strings

LANGUAGES = sorted(path.stem for path in strings.FOLDER.glob("*.json"))


@pytest.fixture(scope="module")
def texts() -> set[str]:
    return strings.from_widgets(strings.page_of_the_studio()) | strings.from_settings() | strings.from_scripts()


def test_there_are_some():
    assert {"de_DE", "zh_CN"} <= set(LANGUAGES)


def test_what_is_collected_is_what_the_page_says(texts):
    assert {
        "Learning rate",
        "Optimiser steps to finish at; guides: 5000, often less.",
        "Next: Crop →",
        "Two checkpoints",
        "Stop and save",
    } <= texts
    assert {"Hidden parts", "(Parts of the tab DSM that are not shown.)"} <= texts
    assert not {"adamw", "wd-swinv2-v3", "IMGS", "ArrowLeft", "dsm-button dsm-small"} & texts


@pytest.mark.parametrize("language", LANGUAGES)
def test_nothing_is_left_in_english_and_no_key_is_dead(texts, language):
    found = set(strings.translation(language))
    assert sorted(texts - found) == []
    phrases = {text.strip() for text in strings.literals() if text.strip()[:1].islower() and " " in text.strip()}
    assert sorted(found - texts - phrases) == []


def test_every_language_has_the_same():
    assert len({frozenset(strings.translation(language)) for language in LANGUAGES}) == 1


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_written_into_fields_is_the_same_in_every_language(language):
    for text, translated in strings.translation(language).items():
        assert translated.strip(), text
        names = {
            "[name]",
            "[extension]",
            "[filewords]",
            "IMGS",
            "DATASET_IMGS",
            "SET",
            ".pt.optim",
            "RUN.json",
            "<hypernet:NAME:1>",
        }
        assert {name for name in names if name in text} == {name for name in names if name in translated}, text


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_tag_of_a_caption_is_taken_for_a_text(language):
    """Captions hold tags in small letters; one that is a key would be shown translated, as if it were another tag."""
    small = [text for text in strings.translation(language) if text.islower()]
    assert all(" " in text for text in small)
    assert [text for text in small if re.fullmatch("[a-z ]+", text) and kind_of(text)] == []
