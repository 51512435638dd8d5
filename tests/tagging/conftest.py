from collections.abc import Callable
from pathlib import Path

import pytest

from tests.tagging.tiny_tagger import write_tagger


@pytest.fixture
def tagger_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tagger(tmp_path_factory.mktemp("tagger"))


@pytest.fixture
def make_tagger(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    return lambda **how: write_tagger(tmp_path_factory.mktemp("tagger"), **how)
