"""LoRA files of other tools, read under the names that the WebUI knows.

The lists are made by going through diffusers' own modules, as the tool that wrote them did, or by hand where the order
of another version is meant.
"""

import json

import pytest
import safetensors.torch
import torch
from diffusers import UNet2DConditionModel

from lib_dsm.diffusion.ldm_layout import unet_config
from lib_dsm.diffusion.sizes import Sizes
from lib_dsm.errors import ModelError
from lib_dsm.extraction.edit_lora import edit_lora
from lib_dsm.extraction.lora_content import read_lora
from lib_dsm.extraction.options import EditOptions

NARROW = Sizes(model_channels=32, num_heads=2, context_dim=48)
RANK = 2
CLASSES = ("Attention", "GEGLU")


@pytest.fixture(scope="module")
def unet():
    with torch.device("meta"):
        return UNet2DConditionModel(**unet_config(NARROW))


def found_modules(unet, classes):
    """Layers in the order of cloneofsimo's search: the classes' instances in order, their layers in order."""
    found = {}
    for ancestor_name, ancestor in unet.named_modules():
        if type(ancestor).__name__ in classes:
            for name, module in ancestor.named_modules():
                if type(module).__name__ in ("Linear", "Conv2d", "LoRACompatibleLinear", "LoRACompatibleConv"):
                    found[f"{ancestor_name}.{name}"] = module.weight.shape
    middle = {name: found.pop(name) for name in list(found) if name.startswith("mid_block")}
    return {**found, **middle}  # in the versions of the time the middle block came last


def pairs_for(shapes, seed=1):
    generator = torch.Generator().manual_seed(seed)
    tensors = []
    for shape in shapes:
        tensors.append(torch.randn(shape[0], RANK, *([1] * (len(shape) - 2)), generator=generator))
        tensors.append(torch.randn(RANK, *shape[1:], generator=generator))
    return tensors


def early(shapes):
    """The same with GEGLU between the attentions, as before April 2023."""
    result, names = {}, list(shapes)
    for start in range(0, len(names), 9):
        block = names[start : start + 9]
        result |= {name: shapes[name] for name in (*block[:4], block[8], *block[4:8])}
    return result


@pytest.mark.parametrize("order", [dict, early], ids=["late", "early"])
def test_lists_of_the_dreambooth_extension_in_both_orders(unet, tmp_path, order):
    shapes = order(found_modules(unet, CLASSES))
    assert len(shapes) == 144
    tensors = pairs_for(shapes.values())
    torch.save(tensors, tmp_path / "me.pt")
    texts = pairs_for([(48, 48)] * 8, seed=2)
    torch.save(texts, tmp_path / "me_txt.pt")
    content = read_lora(tmp_path / "me.pt")
    expected = {"lora_unet_" + name.replace(".", "_"): place for place, name in enumerate(shapes)}
    layer = "lora_te_text_model_encoder_layers_{}_self_attn_{}_proj"
    for place in range(8):
        expected[layer.format(place // 4, "kvq"[place % 4] if place % 4 < 3 else "out")] = 144 + place
    assert set(content.modules) == set(expected)
    whole = tensors + texts
    for name, place in expected.items():
        assert torch.equal(content.modules[name].up, whole[2 * place])
        assert torch.equal(content.modules[name].down, whole[2 * place + 1])


def test_lists_with_resnets(unet, tmp_path):
    shapes = {}
    for block in ("down_blocks", "up_blocks", "mid_block"):
        own = [name for name, _ in unet.named_modules() if name.startswith(block)]
        numbers = dict.fromkeys(".".join(name.split(".")[: 1 if block == "mid_block" else 2]) for name in own)
        for number in (item for item in numbers if item != block or block == "mid_block"):
            for kind, classes in (("attentions", CLASSES), ("resnets", ("ResnetBlock2D",))):
                found = found_modules(unet, classes)
                shapes |= {name: shape for name, shape in found.items() if name.startswith(f"{number}.{kind}")}
    assert len(shapes) == 224
    tensors = pairs_for(shapes.values())
    torch.save(tensors, tmp_path / "me.pt")
    content = read_lora(tmp_path / "me.pt")
    assert list(content.modules) == ["lora_unet_" + name.replace(".", "_") for name in shapes]
    assert all(factors.shape == tuple(shapes[name]) for name, factors in
               zip(shapes, content.modules.values(), strict=True))  # fmt: skip


def test_a_text_encoders_list_alone_and_lists_that_fit_nothing(unet, tmp_path):
    torch.save(pairs_for([(48, 48)] * 48), tmp_path / "a_txt.pt")
    content = read_lora(tmp_path / "a_txt.pt")
    assert len(content.modules) == 48 and all(name.startswith("lora_te_") for name in content.modules)
    shapes = list(found_modules(unet, CLASSES).values())
    torch.save(pairs_for(shapes[:-1]), tmp_path / "b.pt")
    with pytest.raises(ModelError, match="143 pairs"):
        read_lora(tmp_path / "b.pt")
    torch.save(pairs_for(shapes[::-1]), tmp_path / "c.pt")
    with pytest.raises(ModelError, match="Pair "):
        read_lora(tmp_path / "c.pt")
    torch.save(pairs_for(shapes)[:-1], tmp_path / "d.pt")
    with pytest.raises(ModelError, match="no list of pairs"):
        read_lora(tmp_path / "d.pt")


def test_cloneofsimos_safetensors_with_an_embedding(unet, tmp_path):
    shapes = found_modules(unet, CLASSES)
    whole = pairs_for(shapes.values())
    tensors = {f"unet:{place // 2}:{('up', 'down')[place % 2]}": tensor for place, tensor in enumerate(whole)}
    metadata = {f"unet:{place}:rank": str(RANK) for place in range(144)}
    tensors |= {f"text_encoder:{place // 2}:{('up', 'down')[place % 2]}": tensor
                for place, tensor in enumerate(pairs_for([(48, 48)] * 4))}  # fmt: skip
    metadata |= {"unet": json.dumps(list(CLASSES)), "<s1>": "<embed>"}
    tensors["<s1>"] = torch.arange(48.0)
    safetensors.torch.save_file(tensors, tmp_path / "pti.safetensors", metadata)
    edit_lora([(tmp_path / "pti.safetensors", 1.0)], tmp_path / "out.safetensors", EditOptions(precision="fp32"))
    made = read_lora(tmp_path / "out.safetensors")
    assert len(made.modules) == 148
    assert torch.equal(made.embeddings["<s1>"]["string_to_param.*"], torch.arange(48.0)[None])
    name = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"
    place = list(shapes).index("mid_block.attentions.0.transformer_blocks.0.attn2.to_k")
    found = made.modules[name].up @ made.modules[name].down
    assert torch.allclose(found, whole[2 * place] @ whole[2 * place + 1], atol=1e-5)


SPELLINGS = {
    "attention processors": ("{unet}.attn1.processor.to_{q}_lora.{up}.weight",
                             "text_encoder.{text}.to_{q}_lora.{up}.weight"),
    "without a model": ("{bare}.attn1.processor.to_{q}_lora.{up}.weight", None),
    "lora": ("{unet}.attn1.to_{q0}.lora.{up}.weight", "text_encoder.{text}.{q}_proj.lora_linear_layer.{up}.weight"),
    "PEFT": ("{unet}.attn1.to_{q0}.lora_{AB}.weight", "text_encoder.{text}.{q}_proj.lora_{AB}.weight"),
    "PEFT's own": ("base_model.model.{unet}.attn1.to_{q0}.lora_{AB}.default.weight",
                   "text_encoder.{text}.{q}_proj.lora_{AB}.default.weight"),
}  # fmt: skip


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
def test_diffusers_spellings(tmp_path, spelling):
    bare, text = "mid_block.attentions.0.transformer_blocks.0", "text_model.encoder.layers.3.self_attn"
    generator = torch.Generator().manual_seed(1)
    tensors, expected = {}, {}
    for part in ("q", "out"):
        up, down = torch.randn(8, 2, generator=generator), torch.randn(2, 8, generator=generator)
        for pattern, name in zip(spelling, (f"lora_unet_{bare}_attn1_to_{part}{'_0' * (part == 'out')}",
                                            f"lora_te_{text}_{part}_proj"), strict=True):  # fmt: skip
            if pattern is None:
                continue
            for which, letters, tensor in (("up", "B", up), ("down", "A", down)):
                key = pattern.format(unet=f"unet.{bare}", bare=bare, text=text, q=part, up=which, AB=letters,
                                     q0="out.0" if part == "out" else part)  # fmt: skip
                tensors[key] = tensor.clone()
            expected[name.replace(".", "_")] = up @ down
    safetensors.torch.save_file(tensors, tmp_path / "lora.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 2, "lora_alpha": 2}))
    content = read_lora(tmp_path / "lora.safetensors")
    assert set(content.modules) == set(expected)
    for name, product in expected.items():
        assert torch.allclose(content.modules[name].up @ content.modules[name].down, product)


def test_diffusers_alpha_sdxl_and_dora(tmp_path):
    key = "unet.up_blocks.0.upsamplers.0.conv"
    tensors = {f"{key}.lora_B.weight": torch.ones(4, 2, 1, 1), f"{key}.lora_A.weight": torch.ones(2, 3, 3, 3),
               "text_encoder_2.text_model.encoder.layers.0.mlp.fc1.lora_B.weight": torch.ones(4, 2),
               "text_encoder_2.text_model.encoder.layers.0.mlp.fc1.lora_A.weight": torch.ones(2, 4)}  # fmt: skip
    for name in ("unet.add_embedding.linear_1", "unet.down_blocks.1.attentions.0.proj_in"):
        tensors |= {f"{name}.lora_B.weight": torch.ones(4, 2), f"{name}.lora_A.weight": torch.ones(2, 4)}
    metadata = {"lora_adapter_metadata": json.dumps({"unet.r": 2, "unet.lora_alpha": 1})}
    safetensors.torch.save_file(tensors, tmp_path / "xl.safetensors", metadata)
    content = read_lora(tmp_path / "xl.safetensors")
    assert set(content.modules) == {
        "lora_unet_output_blocks_2_2_conv", "lora_te2_text_model_encoder_layers_0_mlp_fc1",
        "lora_unet_label_emb_0_0", "lora_unet_input_blocks_4_1_proj_in",
    }  # fmt: skip
    conv = content.modules["lora_unet_output_blocks_2_2_conv"]
    assert conv.shape == (4, 3, 3, 3) and float((conv.up @ conv.down)[0, 0]) == 1.0  # 2 · alpha 1 / rank 2
    assert float((lambda f: f.up @ f.down)(content.modules["lora_te2_text_model_encoder_layers_0_mlp_fc1"])[0, 0]) == 2
    tensors["unet.mid_block.x.lora_magnitude_vector"] = torch.ones(4)
    safetensors.torch.save_file(tensors, tmp_path / "dora.safetensors")
    with pytest.raises(ModelError, match="DoRA"):
        read_lora(tmp_path / "dora.safetensors")


OUT, QUERY = (f"mid_block.attentions.0.transformer_blocks.0.attn1.{part}" for part in ("to_out.0", "to_q"))
SCALES = {  # what the adapter says, its rank 16 and 4, and what the entries of two matrices of ones become
    "rank pattern": ({"r": 4, "lora_alpha": 4, "rank_pattern": {"to_q": 16}}, 4, 4),
    "stabilised": ({"r": 16, "lora_alpha": 16, "use_rslora": True}, 64, 32),
    "alpha pattern": ({"r": 16, "lora_alpha": 16, "alpha_pattern": {"attn1.to_q": 4}}, 4, 16),
    "a pattern of another module": ({"r": 16, "lora_alpha": 16, "alpha_pattern": {"o_q": 4}}, 16, 16),
}


@pytest.mark.parametrize("peft", [False, True])
@pytest.mark.parametrize(("told", "query", "out"), SCALES.values(), ids=SCALES)
def test_scales_of_adapters(tmp_path, peft, told, query, out):
    start = "base_model.model." if peft else "unet."
    tensors = {f"{start}{name}.lora_{letter}.weight": torch.ones(*((8, rank) if letter == "B" else (rank, 8)))
               for name, rank in ((QUERY, 16), (OUT, 4)) for letter in "AB"}  # fmt: skip
    metadata = {} if peft else {"lora_adapter_metadata": json.dumps({f"unet.{key}": told[key] for key in told})}
    path = tmp_path / "adapter_model.safetensors"
    safetensors.torch.save_file(tensors, path, metadata)
    if peft:
        with pytest.raises(ModelError, match=r"adapter_config\.json"):
            read_lora(path)
        (tmp_path / "adapter_config.json").write_text(json.dumps(told))
    modules = read_lora(path).modules
    for name, expected in ((QUERY, query), (OUT, out)):
        factors = modules["lora_unet_" + name.replace(".", "_")]
        assert torch.allclose(factors.up @ factors.down, torch.tensor(float(expected)))


def test_an_adapters_config_that_is_none_is_refused(tmp_path):
    names = [f"base_model.model.{QUERY}.lora_{letter}.weight" for letter in "AB"]
    tensors = {name: torch.ones(2, 2) for name in names}
    safetensors.torch.save_file(tensors, tmp_path / "a.safetensors")
    for text, said in (("[]", "cannot be read"), (json.dumps({"lora_alpha": "x"}), "alpha"),
                       (json.dumps({"lora_alpha": 1, "use_dora": True}), "DoRA")):  # fmt: skip
        (tmp_path / "adapter_config.json").write_text(text)
        with pytest.raises(ModelError, match=said):
            read_lora(tmp_path / "a.safetensors")


BROKEN = {
    "a whole difference": ({"lora_unet_conv_in.diff": (4, 4)}, {}),
    "a norm": ({"lora_unet_x_norm.w_norm": (4,), "lora_unet_x_norm.b_norm": (4,)}, {}),
    "a bundled embedding": ({"bundle_emb.word.string_to_param.*": (2, 4)}, {}),
    "alpha": ({"lora_unet_x.alpha": (), "lora_unet_x.lora_up.weight": (4, 1), "lora_unet_x.lora_down.weight": (1, 4)},
              {}),
    "an embedding beside numbered factors": ({"<s1>": (1, 48)}, {"<s1>": "<embed>"}),
}  # fmt: skip


@pytest.mark.parametrize(("shapes", "metadata"), BROKEN.values(), ids=BROKEN)
def test_nan_is_found_wherever_it_is(tmp_path, unet, shapes, metadata):
    tensors = {name: torch.ones(shape) for name, shape in shapes.items()}
    if metadata:
        made = pairs_for(found_modules(unet, CLASSES).values())
        tensors |= {f"unet:{index // 2}:{'down' if index % 2 else 'up'}": part for index, part in enumerate(made)}
    path = tmp_path / "lora.safetensors"
    safetensors.torch.save_file(tensors, path, metadata)
    read_lora(path)
    tensors[next(iter(shapes))].view(-1)[0] = float("nan")
    safetensors.torch.save_file(tensors, path, metadata)
    with pytest.raises(ModelError, match="NaN"):
        read_lora(path)


@pytest.mark.parametrize("kind", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_numbers_of_eight_bits_are_read_and_written_and_their_nan_found(tmp_path, kind):
    numbers = torch.tensor([0.5, 1.0])
    for broken in (False, True):
        path = tmp_path / f"{broken}.safetensors"
        found = numbers.clone()
        if broken:
            found[0] = float("nan")
        safetensors.torch.save_file({"lora_unet_conv_in.diff": found.to(kind)}, path)
        if broken:
            with pytest.raises(ModelError, match="NaN"):
                read_lora(path)
        else:
            read_lora(path).file("fp16").save(tmp_path / "out.safetensors")
            written = safetensors.torch.load_file(tmp_path / "out.safetensors")["lora_unet_conv_in.diff"]
            assert torch.equal(written.float(), numbers)
