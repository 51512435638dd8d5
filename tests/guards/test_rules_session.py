"""What is set aside, where the run writes, and which checkpoints are better left alone."""

from pathlib import Path

import pytest

from lib_dsm.guards.check import RULES
from lib_dsm.guards.facts import Storage
from lib_dsm.guards.finding import Severity
from lib_dsm.guards.set_aside import SetAside
from tests.guards.known import facts, finding_of, found


@pytest.mark.parametrize(
    ("set_aside", "expected", "told"),
    [
        (SetAside(vae="kl-f8.vae.pt"), "vae-loaded", "kl-f8.vae.pt"),
        (SetAside(networks=("add_detail", "puni")), "stale-networks", "add_detail, puni"),
        (SetAside(unet="[TRT] nai"), "tensor-rt", "[TRT] nai"),
        (SetAside(hypertile=True), "hypertile", "tiles"),
        (SetAside(tiling=True), "tiling", "tiling"),
        (SetAside(unloaded=True), "model-in-ram", "unloaded"),
        (SetAside(offloaded=True), "medvram", "--medvram"),
        (SetAside(eight_bits=True), "fp8-weights", "8 bits"),
    ],
)
def test_what_the_session_puts_right_is_said(set_aside, expected, told):
    run = facts(set_aside=set_aside)
    assert found(run) == {expected: Severity.FIX}
    assert told in finding_of(run, expected).problem


def test_functions_of_an_extension_in_the_unet_are_named():
    run = facts(set_aside=SetAside(patches=("extensions.freeu.patch",)))
    assert finding_of(run, "patched-unet").severity is Severity.WARN
    assert "extensions.freeu.patch" in finding_of(run, "patched-unet").problem


def test_a_disk_without_room_blocks_with_both_numbers():
    full = Storage(Path("/runs"), needed=2_500_000_000, free=30_000_000)
    finding = finding_of(facts(storage=(full, Storage(Path("/data"), 1, 1))), "disk-full")
    assert finding.severity is Severity.BLOCK
    assert "2.5 GB to /runs" in finding.problem and "30.0 MB are free" in finding.problem


def test_a_folder_that_cannot_be_written_blocks():
    closed = Storage(Path("/runs"), needed=5, problem="Read-only file system")
    finding = finding_of(facts(storage=(closed,)), "output-unwritable")
    assert finding.severity is Severity.BLOCK
    assert finding.problem == "/runs cannot be written: Read-only file system."
    assert "disk-full" not in found(facts(storage=(closed,)))


def test_a_listed_merge_is_warned_of_and_a_list_that_cannot_be_read_is_said():
    run = facts(unsuitable="anything*v3*", data_folder=Path("/dsm"))
    finding = finding_of(run, "wrong-model")
    assert finding.severity is Severity.WARN and "anything*v3*" in finding.problem
    assert "unsuitable-models.txt in /dsm" in finding.remedy
    assert found(facts(unsuitable_note="Your list cannot be read: it is not UTF-8 text.")) == {
        "model-list": Severity.INFO
    }


def test_every_finding_of_a_guard_is_asked_for_by_a_test():
    tests = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    assert [name for guard in RULES for name in guard.ids if f'"{name}"' not in tests] == []


def test_every_guard_has_its_own_rule_ids_and_words():
    for values in (
        [guard.rule for guard in RULES],
        [found_id for guard in RULES for found_id in guard.ids],
        [guard.fine for guard in RULES if guard.fine != "Steps are left to train"],
    ):
        assert len(set(values)) == len(values)
