import pytest

from lib_dsm.guards.unsuitable import BUILT_IN, UNSUITABLE_FILE, begin_list, unsuitable_entry

FULL = "543bcbc21294831c6245cd74c8a7707761e28812c690f946cb81fef930d54b5e"
OTHER = "00" * 32


@pytest.mark.parametrize(
    ("name", "listed"),
    [
        ("Anything-V3.0-pruned.ckpt", True), ("anythingv3.safetensors", True),
        ("AbyssOrangeMix2_sfw.safetensors", True), ("counterfeitV30.safetensors", True), ("my-merge.ckpt", True),
        ("ReV_mix_v2.ckpt", True), ("animefull-final-pruned.ckpt", False), ("micro.safetensors", False),
        ("v1-5-pruned-emaonly.safetensors", False), ("mixed-precision.safetensors", False),
    ],
)  # fmt: skip
def test_merges_are_known_by_their_names(tmp_path, name, listed):
    entry, note = unsuitable_entry(tmp_path, name, OTHER)
    assert bool(entry) is listed and not note


def test_a_renamed_file_is_known_by_its_hash(tmp_path):
    assert unsuitable_entry(tmp_path, "model.ckpt", FULL) == (FULL, "")


def test_the_person_adds_to_the_list_and_takes_from_it(tmp_path):
    (tmp_path / UNSUITABLE_FILE).write_text(
        f"# mine\nWeird*  # ruins everything\nabcdef0123\nexact.safetensors\n!anything-v3*\n!{FULL}\n", encoding="utf-8"
    )
    assert unsuitable_entry(tmp_path, "weird-one.ckpt", OTHER) == ("Weird*", "")
    assert unsuitable_entry(tmp_path, "model.ckpt", "abcdef0123" + "0" * 54) == ("abcdef0123", "")
    assert unsuitable_entry(tmp_path, "Exact.safetensors", OTHER) == ("exact.safetensors", "")
    assert unsuitable_entry(tmp_path, "Anything-V3.0.ckpt", OTHER) == ("", "")
    assert unsuitable_entry(tmp_path, "model.ckpt", FULL) == ("", "")
    assert unsuitable_entry(tmp_path, "counterfeit.ckpt", OTHER)[0]


def test_a_list_that_cannot_be_read_is_noted_and_the_built_in_one_holds(tmp_path):
    for make in (lambda path: path.write_bytes(b"\xff\xfe\xff"), lambda path: (path.unlink(), path.mkdir())):
        make(tmp_path / UNSUITABLE_FILE)
        entry, note = unsuitable_entry(tmp_path, "Anything-V3.0.ckpt", OTHER)
        assert entry and str(tmp_path / UNSUITABLE_FILE) in note


def test_the_file_to_edit_is_begun_once_and_changes_nothing_by_itself(tmp_path):
    begin_list(tmp_path)
    path = tmp_path / UNSUITABLE_FILE
    text = path.read_text(encoding="utf-8")
    assert all(f"# {entry}\n" in text for entry in BUILT_IN)
    assert unsuitable_entry(tmp_path, "micro.safetensors", OTHER) == ("", "")
    path.write_text("mine*\n", encoding="utf-8")
    begin_list(tmp_path)
    assert path.read_text(encoding="utf-8") == "mine*\n"
    begin_list(path / "no folder")  # nothing depends on it
