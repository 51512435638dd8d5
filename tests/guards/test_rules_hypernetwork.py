import dataclasses

import pytest

from lib_dsm.guards import rules_hypernetwork as rules
from lib_dsm.guards.check import RULES, check, guards_of
from lib_dsm.guards.finding import Severity
from lib_dsm.networks.hypernetwork_structure import Structure, recorded
from lib_dsm.networks.hypernetwork_training import HypernetworkStart
from lib_dsm.training.config import EMBEDDING, HYPERNETWORK
from tests.guards.known import facts

WIDTHS = {768: 16, 320: 5, 640: 5, 1280: 6}
BUILT = Structure(tuple(WIDTHS))


def hyper(config=None, **known):
    settings = {"kind": HYPERNETWORK, "learning_rate": "0.00001", "template": ("[filewords]",), **(config or {})}
    return facts(config=settings, **{"context_widths": WIDTHS, **known})


IDS = {
    rules.deadly_rate: "hyper-rate",
    rules.rate_as_factor: "adaptive-rate",
    rules.optimizer_missing: "optimizer-missing",
    rules.not_applied: "hyper-not-applied",
    rules.unloadable_structure: "hyper-unloadable",
    rules.widths_of_another_model: "hyper-widths",
    rules.across_pictures: "hyper-across-batch",
    rules.named_in_template: "hyper-name-in-template",
    rules.empty_template: "template-empty",
    rules.name_taken: "hyper-name-taken",
    rules.optimizer_of_another: "stale-optimizer",
    rules.structure_changed: "hyper-structure-changed",
    rules.optimizer_changed: "optimizer-changed",
}


def only(rule, given):
    """What a rule finds, which all guards together say as well."""
    found = list(rule(given))
    assert [finding.id for finding in found] == [IDS[rule]]
    assert found[0] in check(given)
    return found[0]


def mended(given, finding):
    """The same facts with the remedy applied."""
    return dataclasses.replace(given, config=dataclasses.replace(given.config, **finding.apply))


def test_all_is_well_with_usual_settings():
    ids = {finding.id for finding in check(hyper())}
    assert not {name for name in ids if name.startswith(("hyper", "name", "template", "vectors", "init", "optimizer"))}


def test_each_kind_has_its_guards_alone():
    mine = {guard.rule for guard in guards_of(hyper())}
    other = {guard.rule for guard in guards_of(facts())}
    assert rules.deadly_rate in mine - other
    assert all(guard.kinds and set(guard.kinds) <= {EMBEDDING, HYPERNETWORK} for guard in RULES)
    assert {guard.ids[0] for guard in RULES if guard.rule in other - mine} >= {"template-without-name", "vectors-odd"}


@pytest.mark.parametrize(("rate", "severity"), [
    ("0.005", Severity.BLOCK), ("0.00001:100, 0.0005", Severity.BLOCK), ("0.0002", Severity.WARN),
])  # fmt: skip
def test_a_rate_for_embeddings_is_found(rate, severity):
    given = hyper({"learning_rate": rate})
    found = only(rules.deadly_rate, given)
    assert found.severity is severity and not list(rules.deadly_rate(mended(given, found)))
    assert not list(rules.deadly_rate(hyper({"learning_rate": rate, "optimizer": "prodigy"})))


def test_a_rate_of_its_own_kind_passes():
    for rate in ("0.00001", "0.0001", "5e-6:1000, 1e-6"):
        assert not list(rules.deadly_rate(hyper({"learning_rate": rate})))


def test_an_optimizer_that_finds_its_rate_gets_a_factor():
    given = hyper({"optimizer": "prodigy"})
    found = only(rules.rate_as_factor, given)
    assert "0.00001" in found.problem or "1e-05" in found.problem
    assert not list(rules.rate_as_factor(mended(given, found)))
    assert not list(rules.rate_as_factor(hyper()))


def test_a_missing_package_blocks():
    given = hyper({"optimizer": "dadapt"}, missing_package="dadaptation")
    found = only(rules.optimizer_missing, given)
    assert found.severity is Severity.BLOCK and "dadaptation" in found.remedy
    assert not list(rules.optimizer_missing(hyper()))


def test_what_the_webui_cannot_load_blocks():
    given = hyper({"skip_connection": True})
    found = only(rules.unloadable_structure, given)
    assert found.severity is Severity.BLOCK and "Train_Gamma" in found.problem
    assert not list(rules.unloadable_structure(mended(given, found)))
    odd = hyper({"dropout_structure": (0, 0.1, 0.2)})
    assert not list(rules.unloadable_structure(mended(odd, only(rules.unloadable_structure, odd))))


def test_widths_that_the_model_has_not_are_found():
    some = hyper({"widths": (768, 1024)})
    found = only(rules.widths_of_another_model, some)
    assert found.severity is Severity.WARN and "1024" in found.problem
    assert not list(rules.widths_of_another_model(mended(some, found)))
    none = only(rules.widths_of_another_model, hyper({"widths": (1024,)}))
    assert none.severity is Severity.BLOCK
    assert not list(rules.widths_of_another_model(hyper()))


def test_activations_that_act_across_pictures_are_told():
    given = hyper({"activation": "softmax"})
    assert not list(rules.across_pictures(mended(given, only(rules.across_pictures, given))))


def test_the_name_in_a_template_is_told_and_no_line_at_all_blocks():
    given = hyper({"template": ("[filewords]", "[filewords], [name]")})
    assert not list(rules.named_in_template(mended(given, only(rules.named_in_template, given))))
    empty = hyper({"template": ()})
    assert only(rules.empty_template, empty).severity is Severity.BLOCK
    assert not list(rules.empty_template(given))


def test_a_taken_name_blocks():
    taken = hyper({"name": "Style"}, foreign_networks=frozenset(["style"]))
    assert only(rules.name_taken, taken).apply == {"overwrite": True}
    assert not list(
        rules.name_taken(hyper({"name": "Style", "overwrite": True}, foreign_networks=frozenset(["style"])))
    )
    assert "None" in only(rules.name_taken, hyper({"name": "None"})).problem


def test_another_runs_optimizer_is_told():
    start = HypernetworkStart(BUILT, {}, stale="a.pt.optim belongs to another file than a.pt.")
    found = only(rules.optimizer_of_another, hyper(start=start))
    assert found.id == "stale-optimizer" and "another file" in found.problem
    assert not list(rules.optimizer_of_another(hyper(start=HypernetworkStart(BUILT, {}))))


def test_a_run_goes_on_as_it_was_built():
    record = {"network": {"kind": "hypernetwork", **recorded(BUILT)}}
    assert not list(rules.structure_changed(hyper(record=record)))
    given = hyper({"layer_structure": (1, 3, 1), "activation": "relu"}, record=record)
    found = only(rules.structure_changed, given)
    assert "layer structure 1, 2, 1" in found.problem and "1, 3, 1" in found.problem
    assert not list(rules.structure_changed(mended(given, found)))


def test_a_run_goes_on_with_its_optimizer():
    given = hyper({"optimizer": "prodigy"}, record={"config": {"optimizer": "adamw"}})
    found = only(rules.optimizer_changed, given)
    assert found.apply == {"optimizer": "adamw"} and not list(rules.optimizer_changed(mended(given, found)))
    assert not list(rules.optimizer_changed(hyper(record={"config": {}})))


def test_a_webui_that_applies_none_is_warned_of():
    finding = only(rules.not_applied, hyper(applies_hypernetworks=False))
    assert finding.severity is Severity.WARN and "LoRA" in finding.remedy
    assert not list(rules.not_applied(hyper()))
