"""A style learnt by a hypernetwork in the demo world: a fixed palette, measured with and without the hypernetwork.

Run: `python -m tests.benchmarks.style [--steps 400] [--activation linear] [--out DIR]`. The pictures to learn from show
characters of every kind whose hair, eyes and shirt are blue, and their captions name no colour of these. Then pictures
of other characters, held out of all models, are drawn from captions without those colours, with the hypernetwork and
without, from the same noise; the share that the micro tagger reads as blue is the measure. How many of the attributes
that the captions do name come out right says whether the style has cost anything else.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import tempfile
from pathlib import Path

from PIL import Image

from lib_dsm.cli.progress import run_job
from lib_dsm.demo import judge, world
from lib_dsm.demo.install import install_checkpoint
from lib_dsm.files import write_text
from lib_dsm.host.run import train
from lib_dsm.host.studio import MICRO, StudioHost
from lib_dsm.networks.hypernetwork import load_hypernetwork
from lib_dsm.networks.hypernetwork_training import HypernetworkTraining
from lib_dsm.training.config import PreviewRequest, RunConfig

COLOUR = "blue"
PAINTED = ("hair", "eyes", "shirt")
NAMED = ("head", "skin", "style", "hat", "mouth")
TRAINED_ON, JUDGED = 40, 30


def painted(character: world.Character) -> world.Character:
    """The character in the palette, with hair to be painted."""
    style = "short hair" if character.style == world.BALD else character.style
    return dataclasses.replace(character, hair=COLOUR, eyes=(COLOUR, COLOUR), shirt=COLOUR, style=style)


def caption(character: world.Character) -> str:
    """Its tags without the painted colours."""
    left_out = {tag for attribute in PAINTED for tag in world.attribute_tags(character, attribute)}
    return ", ".join(tag for tag in world.tags(character) if tag not in left_out)


def draw_style(folder: Path) -> None:
    """The pictures to learn from, of characters that are not held out."""
    folder.mkdir(parents=True)
    for number in range(TRAINED_ON):
        rng = random.Random(f"style/{number}")
        character = painted(world.sample_seen(rng))
        world.render(character, *rng.choice(world.SIZES), rng).save(folder / f"{number:03}.png")
        write_text(folder / f"{number:03}.txt", caption(character))


def settings(folder: Path, steps: int, activation: str) -> RunConfig:
    """A hypernetwork as a person would train it here."""
    return RunConfig(
        name="blue-period", kind="hypernetwork", checkpoint=str(MICRO), dataset=str(folder / "pictures"),
        template=("[filewords]",), learning_rate="0.001", max_steps=steps, batch_size=4, gradient_accumulation=1,
        width=96, height=64, size_step=8, activation=activation, save_every=0, preview_every=0, validate_every=0,
        overwrite=True, output=str(folder / "runs"), override=("hyper-rate",),
    )  # fmt: skip


def pictures(
    host: StudioHost, config: RunConfig, network: Path, strength: float
) -> list[tuple[world.Character, Image.Image]]:
    """Previews of held-out characters with the hypernetwork at a strength."""
    made = []
    with host.training_session(config) as session:
        found = load_hypernetwork(network)
        hypernetwork = HypernetworkTraining(config.name, found.structure, found.weights, session.model.device)
        for number in range(JUDGED):
            character = painted(world.character_of(10 * (number + 1)))
            request = PreviewRequest(caption(character), seed=number, steps=12, cfg=3.0, width=64, height=64)
            with hypernetwork.applied(session.model, strength) as replacements:
                made.append((character, session.preview(request, replacements, 1)))
    return made


def shares(made: list[tuple[world.Character, Image.Image]]) -> tuple[float, float]:
    """Which share of the painted attributes has the colour, and of the named ones is right."""
    shown = [judge.shown(image, character) for character, image in made]
    return tuple(  # type: ignore[return-value]
        sum(right[name] for right in shown for name in names) / (len(shown) * len(names)) for names in (PAINTED, NAMED)
    )


def sheet(rows: list[list[Image.Image]], path: Path) -> None:
    """The pictures side by side, a row each."""
    scale = 2
    canvas = Image.new("RGB", (64 * scale * len(rows[0]), 64 * scale * len(rows)), "white")
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            canvas.paste(
                image.resize((64 * scale, 64 * scale), Image.Resampling.NEAREST), (64 * scale * x, 64 * scale * y)
            )
    canvas.save(path)


def main() -> None:
    """Train, measure and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--activation", default="linear")
    parser.add_argument("--out", type=Path, help="folder of the run and the sheet of pictures")
    options = parser.parse_args()
    folder = options.out or Path(tempfile.mkdtemp(prefix="dsm-style-"))
    if (folder / "pictures").exists():
        parser.error(f"{folder} has pictures already; name an empty folder")
    host = StudioHost(folder / "studio")
    install_checkpoint(host.folders.checkpoints)
    draw_style(folder / "pictures")
    config = settings(folder, options.steps, options.activation)
    result = run_job("Training a style", "steps", lambda job: train(host, config, job))
    network = next(file for file in result.files if file.suffix == ".pt")
    found = {strength: pictures(host, config, network, strength) for strength in (0.0, 0.5, 1.0)}
    measured = {strength: shares(made) for strength, made in found.items()}
    sheet([[image for _, image in made[:10]] for made in found.values()], folder / "style.png")
    for strength, (palette, named) in measured.items():
        print(
            f"strength {strength}: {palette:.0%} of hair, eyes and shirts {COLOUR}, {named:.0%} of what is named right"
        )
    print(f"with over without: {measured[1.0][0] / max(measured[0.0][0], 1e-9):.1f}; {folder / 'style.png'}")


if __name__ == "__main__":
    main()
