import pytest
import safetensors.torch
import torch

from lib_dsm.errors import InputError, ModelError
from lib_dsm.extraction.about import About
from lib_dsm.extraction.edit_lora import edit_lora
from lib_dsm.extraction.lora_content import read_lora
from lib_dsm.extraction.options import EditOptions
from lib_dsm.jobs import Job
from lib_dsm.networks.embedding import Embedding, save_pt

LINEAR, CONV = "lora_unet_mid_block_attentions_0_proj_in", "lora_unet_mid_block_resnets_0_conv1"
FULL = EditOptions(precision="fp32")


def lora(path, seed=1, rank=6, alpha=3.0, **more):
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        f"{LINEAR}.lora_up.weight": torch.randn(20, rank, generator=generator),
        f"{LINEAR}.lora_down.weight": torch.randn(rank, 12, generator=generator),
        f"{LINEAR}.alpha": torch.tensor(alpha),
        f"{CONV}.lora_up.weight": torch.randn(10, rank, 1, 1, generator=generator),
        f"{CONV}.lora_down.weight": torch.randn(rank, 5, 3, 3, generator=generator),
        **more,
    }
    safetensors.torch.save_file(tensors, path)
    return path


def change(path, name):
    """The change of a module by the loader's formula."""
    tensors = safetensors.torch.load_file(path)
    up, down = (tensors[f"{name}.lora_{part}.weight"].float() for part in ("up", "down"))
    scale = float(tensors.get(f"{name}.alpha", down.shape[0])) / down.shape[0]
    return scale * up.flatten(1) @ down.flatten(1)


def test_a_resize_is_the_best_of_its_rank_and_says_its_error(tmp_path):
    source = lora(tmp_path / "a.safetensors")
    report = edit_lora([(source, 1.0)], tmp_path / "o.safetensors", EditOptions(rank=3, conv_rank=2, precision="fp32"))
    lost = whole = 0.0
    for name, rank in ((LINEAR, 3), (CONV, 2)):
        before, after = change(source, name), change(report.path, name)
        values = torch.linalg.svdvals(before)
        least = float(values[rank:].norm())
        assert float((before - after).norm()) == pytest.approx(least, rel=1e-4)
        assert report.errors[name] == pytest.approx(least / float(values.norm()), rel=1e-4)
        assert torch.linalg.matrix_rank(after) == rank
        lost, whole = lost + least**2, whole + float(values.norm()) ** 2
    assert report.error == pytest.approx((lost / whole) ** 0.5, rel=1e-4)
    assert safetensors.torch.load_file(report.path)[f"{CONV}.lora_down.weight"].shape == (2, 5, 3, 3)


def test_energy_and_size(tmp_path):
    source = lora(tmp_path / "a.safetensors")
    report = edit_lora([(source, 1.0)], tmp_path / "e.safetensors", EditOptions(energy=0.7, precision="fp32"))
    for name in (LINEAR, CONV):
        kept = torch.linalg.svdvals(change(source, name)).square().cumsum(0)
        rank = read_lora(report.path).modules[name].rank
        assert kept[rank - 1] >= 0.7 * kept[-1] and (rank == 1 or kept[rank - 2] < 0.7 * kept[-1])
    report = edit_lora([(source, 1.0)], tmp_path / "s.safetensors", EditOptions(size=0.0095, precision="fp32"))
    assert report.path.stat().st_size <= 9500 and report.error > 0
    with pytest.raises(InputError, match="too few"):
        edit_lora([(source, 1.0)], tmp_path / "t.safetensors", EditOptions(size=0.001))


def test_a_merge_is_the_weighted_sum_and_keeps_no_more_rank_than_it_needs(tmp_path):
    one, other = lora(tmp_path / "a.safetensors"), lora(tmp_path / "b.safetensors", seed=2, rank=2, alpha=2.0)
    report = edit_lora([(one, 0.5), (other, -2.0)], tmp_path / "o.safetensors", FULL)
    for name in (LINEAR, CONV):
        expected = 0.5 * change(one, name) - 2.0 * change(other, name)
        assert torch.allclose(change(report.path, name), expected, atol=1e-5)
    assert read_lora(report.path).modules[LINEAR].rank == 8
    report = edit_lora([(one, 0.5), (one, 0.25)], tmp_path / "twice.safetensors", FULL)
    assert read_lora(report.path).modules[LINEAR].rank == 6
    assert torch.allclose(change(report.path, LINEAR), 0.75 * change(one, LINEAR), atol=1e-5)
    report = edit_lora([(one, 1.0)], tmp_path / "scaled.safetensors", EditOptions(scale=-0.3, precision="fp32"))
    assert torch.allclose(change(report.path, CONV), -0.3 * change(one, CONV), atol=1e-5)


def test_norms_differences_and_embeddings_are_added_or_refused(tmp_path):
    norm = {"lora_unet_out_0.w_norm": torch.ones(4), "lora_unet_out_0.b_norm": torch.ones(4)}
    word = {"bundle_emb.me.string_to_param.*": torch.ones(2, 768)}
    one = lora(tmp_path / "a.safetensors", **norm, **word)
    other = lora(tmp_path / "b.safetensors", seed=2, **norm, **word)
    report = edit_lora([(one, 0.5), (other, 2.0)], tmp_path / "o.safetensors", FULL)
    tensors = safetensors.torch.load_file(report.path)
    assert torch.equal(tensors["lora_unet_out_0.w_norm"], torch.full((4,), 2.5))
    assert report.embeddings == ("me",) and torch.equal(tensors["bundle_emb.me.string_to_param.*"], torch.ones(2, 768))
    clash = lora(tmp_path / "c.safetensors", **{"bundle_emb.me.string_to_param.*": torch.zeros(2, 768)})
    with pytest.raises(ModelError, match='"me" is another'):
        edit_lora([(one, 1.0), (clash, 1.0)], tmp_path / "p.safetensors", FULL)
    loha = {f"lora_unet_mid_block_resnets_1_conv1.hada_w1_{part}": torch.ones(4, 4) for part in "ab"}
    with pytest.raises(ModelError, match="hada_w1_a"):
        edit_lora([(lora(tmp_path / "h.safetensors", **loha), 0.5)], tmp_path / "q.safetensors", FULL)
    with pytest.raises(ModelError, match="another shape"):
        bad = {f"{LINEAR}.lora_down.weight": torch.ones(6, 9)}
        edit_lora([(one, 1.0), (lora(tmp_path / "d.safetensors", **bad), 1.0)], tmp_path / "q.safetensors", FULL)
    assert not (tmp_path / "q.safetensors").exists()


def test_a_convolution_in_three_parts_becomes_one_in_two(tmp_path):
    generator = torch.Generator().manual_seed(1)
    up, mid, down = (torch.randn(shape, generator=generator) for shape in ((10, 4, 1, 1), (4, 3, 3, 3), (3, 5, 1, 1)))
    parts = {"lora_up.weight": up, "lora_mid.weight": mid, "lora_down.weight": down, "alpha": torch.tensor(3.0)}
    safetensors.torch.save_file(
        {f"{CONV}.{part}": tensor for part, tensor in parts.items()}, tmp_path / "c.safetensors"
    )
    factors = read_lora(tmp_path / "c.safetensors").modules[CONV]
    picture = torch.randn(1, 5, 6, 6, generator=generator)
    expected = torch.nn.functional.conv2d(
        torch.nn.functional.conv2d(torch.nn.functional.conv2d(picture, down), mid), up
    )
    weight = (factors.up @ factors.down).reshape(factors.shape)
    assert torch.allclose(torch.nn.functional.conv2d(picture, weight), expected, atol=1e-3)


def test_dead_modules_go_and_attentions_stay_whole(tmp_path):
    layer = "lora_te_text_model_encoder_layers_0_self_attn_{}_proj.lora_{}.weight"
    more = {layer.format(part, which): (torch.ones if part == "q" else torch.zeros)(*shape)
            for part in ("q", "k", "v", "out") for which, shape in (("up", (8, 1)), ("down", (1, 8)))}  # fmt: skip
    more |= {"lora_unet_conv_in.lora_up.weight": torch.zeros(4, 1, 1, 1),
             "lora_unet_conv_in.lora_down.weight": torch.ones(1, 4, 3, 3)}  # fmt: skip
    report = edit_lora([(lora(tmp_path / "a.safetensors", **more), 1.0)], tmp_path / "o.safetensors", FULL)
    assert report.pruned == ("lora_unet_conv_in",)
    assert sum(name.startswith("lora_te") for name in read_lora(report.path).modules) == 4
    report = edit_lora([(tmp_path / "a.safetensors", 1.0)], tmp_path / "p.safetensors", EditOptions(prune=0.99))
    assert report.modules == 1


def test_precisions_and_what_does_not_fit_them(tmp_path):
    source = lora(tmp_path / "a.safetensors")
    for precision, kind in (("fp16", torch.float16), ("bf16", torch.bfloat16), ("fp32", torch.float32)):
        report = edit_lora([(source, 1.0)], tmp_path / f"{precision}.safetensors", EditOptions(precision=precision))
        tensors = safetensors.torch.load_file(report.path)
        assert tensors[f"{LINEAR}.lora_up.weight"].dtype == kind
        assert torch.allclose(change(report.path, LINEAR), change(source, LINEAR), atol=0.1)
    huge = lora(tmp_path / "h.safetensors", **{f"{LINEAR}.alpha": torch.tensor(1e12)})
    with pytest.raises(ModelError, match="fp16 cannot hold"):
        edit_lora([(huge, 1.0)], tmp_path / "x.safetensors", EditOptions())
    assert not (tmp_path / "x.safetensors").exists()


def test_refusals(tmp_path):
    safetensors.torch.save_file({"x": torch.ones(2)}, tmp_path / "x.safetensors")
    with pytest.raises(ModelError, match="no LoRA"):
        edit_lora([(tmp_path / "x.safetensors", 1.0)], tmp_path / "o.safetensors", FULL)
    broken = lora(tmp_path / "n.safetensors", **{f"{LINEAR}.lora_up.weight": torch.full((20, 6), float("nan"))})
    with pytest.raises(ModelError, match="NaN"):
        edit_lora([(broken, 1.0)], tmp_path / "o.safetensors", FULL)
    with pytest.raises(InputError, match="itself"):
        edit_lora([(broken, 1.0)], broken, EditOptions(overwrite=True))
    with pytest.raises(InputError, match="No LoRA"):
        edit_lora([], tmp_path / "o.safetensors", FULL)


@pytest.mark.parametrize("order", [1, -1])
def test_a_whole_difference_and_a_low_rank_are_added(tmp_path, order):
    whole = {f"{CONV}.diff": torch.randn(10, 5, 3, 3), f"{CONV}.diff_b": torch.randn(10),
             f"{LINEAR}.diff": torch.zeros(1), f"{LINEAR}.diff_b": torch.randn(20)}  # fmt: skip
    safetensors.torch.save_file(whole, tmp_path / "w.safetensors")
    one = lora(tmp_path / "a.safetensors")
    report = edit_lora(
        [(one, 0.5), (tmp_path / "w.safetensors", 2.0)][::order], tmp_path / "o.safetensors", EditOptions()
    )
    found = safetensors.torch.load_file(report.path)
    for name, shape in ((CONV, (10, 5, 3, 3)), (LINEAR, (20, 12))):
        expected = 0.5 * change(one, name).reshape(shape) + 2 * whole[f"{name}.diff"]
        assert torch.allclose(found[f"{name}.diff"], expected, atol=1e-5)
        assert torch.equal(found[f"{name}.diff_b"], 2 * whole[f"{name}.diff_b"])
    safetensors.torch.save_file({f"{CONV}.diff": torch.ones(10, 5, 1, 1)}, tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match="another shape"):
        edit_lora([(one, 1.0), (tmp_path / "w.safetensors", 1.0)], tmp_path / "p.safetensors", EditOptions())


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_what_is_stored_in_a_precision_stays_the_same_number_for_number(tmp_path, kind):
    source = lora(tmp_path / "a.safetensors", rank=8, alpha=0.25)
    tensors = safetensors.torch.load_file(source)
    stored = {key: t if "alpha" in key else t.to(kind) for key, t in tensors.items()}
    safetensors.torch.save_file(stored, source)
    precision = {torch.float16: "fp16", torch.bfloat16: "bf16"}[kind]
    report = edit_lora([(source, 1.0)], tmp_path / "o.safetensors", EditOptions(precision=precision))
    for name in (LINEAR, CONV):
        assert torch.equal(change(report.path, name), change(source, name))
    assert report.error < 1e-7


def test_the_error_is_that_of_the_stored_numbers(tmp_path):
    source = lora(tmp_path / "a.safetensors")
    report = edit_lora([(source, 1.0)], tmp_path / "o.safetensors", EditOptions(precision="bf16"))
    for name in (LINEAR, CONV):
        before, after = change(source, name), change(report.path, name)
        found = float((before - after).norm() / before.norm())
        assert found > 1e-4 and report.errors[name] == pytest.approx(found, rel=1e-2)
    assert report.error > 1e-4


def test_dead_differences_go(tmp_path):
    dead = {"lora_unet_out_0.w_norm": torch.zeros(4), "lora_unet_out_0.b_norm": torch.zeros(4),
            "lora_unet_conv_in.diff": torch.zeros(1), "lora_unet_conv_in.diff_b": torch.full((4,), 1e-3)}  # fmt: skip
    source = lora(tmp_path / "a.safetensors", **dead)
    report = edit_lora([(source, 1.0)], tmp_path / "o.safetensors", EditOptions())
    assert report.pruned == ("lora_unet_out_0",) and report.kept == ("lora_unet_conv_in",)
    report = edit_lora([(source, 1.0)], tmp_path / "p.safetensors", EditOptions(prune=0.01))
    assert set(report.pruned) == {"lora_unet_out_0", "lora_unet_conv_in"} and report.modules == 2


def test_a_size_is_kept_or_refused(tmp_path):
    attention = "lora_te_text_model_encoder_layers_0_self_attn_{}_proj.lora_{}.weight"
    shapes = {"up": (2000, 1), "down": (1, 2000)}
    more = {attention.format(part, which): torch.ones(shape) for part in ("q", "k", "v", "out")
            for which, shape in shapes.items()}  # fmt: skip
    source = lora(tmp_path / "a.safetensors", **more)
    with pytest.raises(InputError, match="too few"):
        edit_lora([(source, 1.0)], tmp_path / "o.safetensors", EditOptions(size=0.02))
    assert not (tmp_path / "o.safetensors").exists()
    report = edit_lora([(source, 1.0)], tmp_path / "o.safetensors", EditOptions(size=0.035))
    assert report.path.stat().st_size <= 35_000
    assert report.dropped == (LINEAR, CONV) and report.errors[CONV] == 1 and "2 modules" in report.text()
    words = [tmp_path / f"{name}.pt" for name in ("one", "two")]
    for path in words:
        save_pt(Embedding(path.stem, torch.ones(4, 768)), path)
    with pytest.raises(InputError, match="too few"):
        edit_lora(
            [(source, 1.0)], tmp_path / "q.safetensors", EditOptions(size=0.035), about=About(embeddings=tuple(words))
        )


def test_what_was_written_meanwhile_stays(tmp_path):
    source, out = lora(tmp_path / "a.safetensors"), tmp_path / "o.safetensors"

    class Meanwhile(Job):
        def progress(self, *given):
            out.write_bytes(b"another's")

    with pytest.raises(InputError, match="exists already"):
        edit_lora([(source, 1.0)], out, EditOptions(), Meanwhile("edit"))
    assert out.read_bytes() == b"another's"


def told(path):
    with safetensors.safe_open(str(path), "pt") as file:
        return file.metadata()


def test_the_metadata_are_those_of_the_new_file(tmp_path):
    source = lora(tmp_path / "a.safetensors")
    before = {"sshs_legacy_hash": "abcd", "ss_network_args": '{"conv_dim": "8"}', "ss_base_model_version": "sd_v2_v",
              "ss_v2": "True", "ss_network_dim": "32", "ss_sd_model_name": "mine"}  # fmt: skip
    safetensors.torch.save_file(safetensors.torch.load_file(source), source, before)
    report = edit_lora([(source, 1.0)], tmp_path / "o.safetensors", EditOptions())
    found = told(report.path)
    assert not {"sshs_legacy_hash", "ss_network_args"} & found.keys()
    assert (found["ss_base_model_version"], found["ss_v2"], found["ss_network_dim"]) == ("sd_v2_v", "True", "6")
    assert found["ss_sd_model_name"] == "mine" and report.family == "SD2"


@pytest.mark.parametrize("weight", [float("nan"), float("inf")])
def test_a_weight_is_a_number(tmp_path, weight):
    with pytest.raises(InputError, match=str(weight)):
        edit_lora([(lora(tmp_path / "a.safetensors"), weight)], tmp_path / "o.safetensors", EditOptions())


def test_what_would_be_passed_over_is_refused(tmp_path):
    source, out = lora(tmp_path / "a.safetensors"), tmp_path / "o.safetensors"
    with pytest.raises(InputError, match="rank and energy"):
        edit_lora([(source, 1.0)], out, EditOptions(rank=2, energy=0.5))
    with pytest.raises(InputError, match="energy and size"):
        edit_lora([(source, 1.0)], out, EditOptions(size=2, energy=0.5))
    with pytest.raises(InputError, match="old DreamBooth"):
        edit_lora([(source, 1.0)], out, EditOptions(), text_encoder=source)
    edit_lora([(source, 1.0)], out, EditOptions(conv_rank=2))
    ranks = {name: factors.rank for name, factors in read_lora(out).modules.items()}
    assert ranks == {LINEAR: 6, CONV: 2}


def test_what_is_no_part_of_a_lora_is_named(tmp_path):
    odd = {f"strange_{number}.weight": torch.ones(1) for number in range(10)}
    report = edit_lora([(lora(tmp_path / "a.safetensors", **odd), 1.0)], tmp_path / "o.safetensors", FULL)
    assert report.unknown == tuple(sorted(odd))
    assert "Left out, no part of a LoRA: strange_0.weight, strange_1.weight" in report.text()
    assert report.text().count("strange_") == 8 and "and 2 more" in report.text()
    assert not any(name.startswith("strange_") for name in safetensors.torch.load_file(report.path))
