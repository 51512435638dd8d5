import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_dsm.dataset.captions import join_tags, split_tags
from lib_dsm.dataset.matching import tag_key
from lib_dsm.errors import InputError
from lib_dsm.tagging.labels import Labels
from lib_dsm.tagging.options import TagOptions
from lib_dsm.tagging.scores import FLOOR, Scores
from lib_dsm.tagging.tags import KAOMOJI, Chooser, mcut, merge, rating, spell

NAMES = ("general", "explicit", "blue_hair", "hat_(felt)", "^_^", "chair", "miku", "rin", "a_series")
KINDS = ("rating", "rating", "general", "general", "general", "general", "character", "character", "copyright")
LABELS = Labels.of(NAMES, KINDS)
DENSE = np.array([0.3, 0.6, 0.5, 0.9, 0.35, 0.34, 0.84, 0.85, 0.8], np.float32)
SCORES = Scores.of(DENSE)
Own = tuple[float | None, float | None]


def tags(scores: Scores = SCORES, own: Own = (None, None), **how: object) -> list[str]:
    return Chooser(LABELS, TagOptions(**how), own).caption(scores)  # type: ignore[arg-type]


def test_thresholds_by_category_spelling_and_order() -> None:
    assert tags() == [r"hat \(felt\)", "rin", "blue hair", "^_^"]
    assert tags(escape=False, keep_underscores=True) == ["hat_(felt)", "rin", "blue_hair", "^_^"]
    assert tags(sort="alphabetical") == ["^_^", "blue hair", r"hat \(felt\)", "rin"]
    assert tags(sort="model") == ["blue hair", r"hat \(felt\)", "^_^", "rin"]
    assert tags(threshold=0.51, character_threshold=0.5) == [r"hat \(felt\)", "rin", "miku"]
    assert rating(SCORES, LABELS) == "explicit"


def test_balanced_thresholds_where_they_are_known() -> None:
    assert tags(own=(0.6, 0.8)) == tags()
    assert tags(own=(0.6, 0.84), balanced=True) == [r"hat \(felt\)", "rin", "miku"]
    assert tags(own=(0.6, None), balanced=True) == [r"hat \(felt\)", "rin"]
    assert tags(balanced=True) == tags()


@pytest.mark.parametrize("spelling", ["hat (felt)", "hat_(felt)", r"hat \(felt\)", "HAT_*", "hat *"])
def test_lists_match_any_spelling(spelling: str) -> None:
    assert r"hat \(felt\)" not in tags(exclude=(spelling,))
    assert tags(only=(spelling,)) == [r"hat \(felt\)"]


def test_exclude_goes_by_whole_tags() -> None:
    assert "chair" in tags(threshold=0.1, exclude=("hair",))


def test_first_moves_known_tags_and_adds_trigger_words() -> None:
    assert tags(first=("My_Char", "blue_hair", "chair"), only=("*hair", "rin")) == ["My_Char", "blue hair", "rin"]
    assert tags(first=("My_Char", "my char"), only=("rin",)) == ["My_Char", "rin"]


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (("blue hair=hair",), [r"hat \(felt\)", "rin", "hair", "^_^"]),
        (("*hair=*coat",), [r"hat \(felt\)", "rin", "blue coat", "^_^"]),
        (("hat_(*)=* hat", "rin="), ["felt hat", "blue hair", "^_^"]),
        (("* => x",), ["x"]),
        (("rin=blue_hair",), [r"hat \(felt\)", "blue_hair", "^_^"]),
        (("rin|miku=singer", r"hat \(?elt\)=?un hat"), ["fun hat", "singer", "blue hair", "^_^"]),
        (("* => *!", "rin="), [r"hat \(felt\)!", "rin!", "blue hair!", "^_^!"]),
        (("^_^ => happy",), [r"hat \(felt\)", "rin", "blue hair", "happy"]),
    ],
)
def test_replacing(rules: tuple[str, ...], expected: list[str]) -> None:
    assert tags(replace=rules) == expected


def test_a_replaced_tag_is_excluded_by_either_name() -> None:
    assert "hair" not in tags(replace=("blue hair=hair",), exclude=("hair",))
    assert "hair" not in tags(replace=("blue hair=hair",), exclude=("blue hair",))


@pytest.mark.parametrize("rule", ["hair", "=hair", " = x"])
def test_a_bad_replacement_is_refused(rule: str) -> None:
    with pytest.raises(InputError, match="OLD=NEW"):
        tags(replace=(rule,))


def test_weights_are_the_scores_and_brackets_in_them_are_escaped() -> None:
    assert tags(weights=True, escape=False, first=("me",)) == [
        "me", r"(hat \(felt\):0.90)", "(rin:0.85)", "(blue hair:0.50)", "(^_^:0.35)",
    ]  # fmt: skip


def test_the_rating_is_a_tag_of_its_own() -> None:
    assert tags(rating=True)[-1] == "rating:explicit"
    assert tags(rating=True, exclude=("rating:*",)) == tags()
    assert tags(rating=True, replace=("rating:explicit=nsfw",))[-1] == "nsfw"
    assert tags(rating=True, only=("rin",)) == ["rin"]


def test_further_kinds() -> None:
    assert "a series" not in tags(threshold=0.1)
    assert "a series" in tags(kinds=("copyright",))
    with pytest.raises(InputError, match="no further kind"):
        tags(kinds=("copyrights",))


def test_mcut() -> None:
    assert mcut(np.array([0.9, 0.1, 0.8, 0.2], np.float32)) == pytest.approx(0.5)
    assert mcut(np.array([], np.float32)) == 0.0
    assert tags(mcut=True) == [r"hat \(felt\)", "rin", "miku"][:2]
    low = DENSE.copy()
    low[6:8] = 0.1, 0.02
    assert "miku" not in tags(Scores.of(low), mcut=True)


@given(st.lists(st.floats(0, 1, width=32), min_size=9, max_size=9), st.booleans(), st.floats(0, 1))
def test_the_tags_are_those_of_the_definition(values: list[float], cut: bool, threshold: float) -> None:
    """Against the definition on all scores, rounded as they are kept."""
    scores = Scores.of(np.array(values))
    dense = scores.dense(9)
    general = mcut(dense[2:6]) if cut else threshold
    character = max(mcut(dense[6:8]), 0.15) if cut else threshold
    limits = [2, 2, general, general, general, general, character, character, 2]
    expected = {NAMES[place] for place in range(9) if dense[place] >= max(limits[place], FLOOR) - 1e-5}
    surely = {NAMES[place] for place in range(9) if dense[place] >= max(limits[place], FLOOR) + 1e-5}
    options = TagOptions(mcut=cut, threshold=threshold, character_threshold=threshold)
    found = {NAMES[chosen.place] for chosen in Chooser(LABELS, options).choose(scores)}
    assert surely <= found <= expected


def test_faces_keep_their_mouth() -> None:
    assert {spell(face, TagOptions(escape=False)) for face in KAOMOJI} == KAOMOJI
    assert spell("(o)_(o)", TagOptions()) == r"\(o\)_\(o\)"
    assert spell("a\\b", TagOptions()) == "a\\\\b"


@given(st.lists(st.sampled_from(NAMES), unique=True), st.lists(st.sampled_from(NAMES), unique=True))
def test_merging_loses_nothing_and_doubles_nothing(old: list[str], new: list[str]) -> None:
    existing = [spell(name, TagOptions()) for name in old]
    for how in ("append", "prepend"):
        merged = merge(existing, new, how)
        assert [tag for tag in merged if tag in existing] == existing
        assert len(merged) == len(set(old) | set(new)) == len(set(map(tag_key, merged)))
        assert split_tags(join_tags(merged)) == merged
    assert merge(existing, new, "replace") == new


def test_a_weight_makes_no_other_tag() -> None:
    assert merge(["(blue hair:0.97)", "hat"], ["blue_hair", "(hat:0.5)", "rin"], "append") == [
        "(blue hair:0.97)", "hat", "rin",
    ]  # fmt: skip


@given(st.lists(st.floats(0, 1), max_size=40))
def test_scores_are_kept_as_they_are(values: list[float]) -> None:
    dense = np.array(values)
    scores = Scores.of(dense)
    again = Scores.from_bytes(scores.to_bytes())
    assert (again.places == scores.places).all() and (again.levels == scores.levels).all()
    kept = again.dense(len(values))
    assert np.abs(kept - np.where(dense >= FLOOR, dense, 0)).max(initial=0) <= FLOOR / 1000
    content = bytearray(scores.to_bytes())
    content[len(content) // 2] ^= 1
    with pytest.raises(InputError, match="damaged"):
        Scores.from_bytes(bytes(content))
