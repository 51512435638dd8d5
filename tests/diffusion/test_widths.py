from lib_dsm.diffusion.contexts import context_widths
from lib_dsm.diffusion.widths import STABLE_DIFFUSION_1, widths_in
from lib_dsm.host.studio import MICRO
from lib_dsm.networks.tensor_files import open_tensors


def test_the_header_tells_what_the_model_has(micro):
    with open_tensors(MICRO) as file:
        found = widths_in(file.shapes)
    assert found == micro.context_widths() and list(found) == list(micro.context_widths())
    assert context_widths(micro.unet, 128) == found and next(iter(context_widths(micro.unet, 128))) == 128


def test_stable_diffusion_1_has_32_layers():
    prefix = "model.diffusion_model.input_blocks.{}.1.transformer_blocks.0.{}.to_k.weight"
    sides = [320] * 5 + [640] * 5 + [1280] * 6
    shapes = {prefix.format(place, "attn1"): (width, width) for place, width in enumerate(sides)}
    shapes |= {prefix.format(place, "attn2"): (width, 768) for place, width in enumerate(sides)}
    assert widths_in(shapes) == STABLE_DIFFUSION_1 and next(iter(widths_in(shapes))) == 768
    assert widths_in({"first_stage_model.x": (1, 2)}) == {}
