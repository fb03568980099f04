"""Draw what each kind of event looks like, each out of a real run: the pictures of docs/events.md.

    python benchmarks/event_pictures.py [--kind KIND]... [--out DIR] [--runs DIR]

Trains one small GAN a kind (5 to 60 seconds each on an idle core) and draws, left, what the
detector reads, with its limit, and when the event began, was detected and ended; right, samples of
the probe before its onset and of the probe at its detection. What goes wrong does so by the run's
settings; three kinds that are hard to have so within a minute are made by an intervention:
memorization (FewImages), mode_dropping (HiddenModes) and recovery (TwoDigits). Of several events
of a kind the last one is drawn. With --runs, finished runs are kept and not run again. Needs
chromium.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go
import torch
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageFilter
from plotly.subplots import make_subplots
from torch import Tensor

from analysis.style import COLORS
from ganstudy.gan.config import TrainConfig, merge
from ganstudy.gan.datasets import Dataset
from ganstudy.gan.datasets.toys import Mixture
from ganstudy.gan.trainer import GanTrainer
from ganstudy.measure.events import DETECTORS, EventsConfig, names
from ganstudy.measure.events.gradients import VanishingGradient
from ganstudy.measure.protocol import MeasureConfig
from ganstudy.records import Event, TrialRecord
from ganstudy.store import StudyFolder
from ganstudy.trial import SCATTER_SIDE, TrialSpec, run_trial, sample_grid

WIDTH, HEIGHT, SHOWN, GAP, WHITE = 1000, 320, 16, 102, (255, 255, 255)
OUT = Path(__file__).parents[1] / "docs" / "events"
FLAGS = (
    "headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "hide-scrollbars",
    "disable-background-networking", "virtual-time-budget=8000",
)  # fmt: skip
BROWSER = ["chromium", *(f"--{flag}" for flag in FLAGS)]
LINES, SHADE = (COLORS[0], COLORS[3], COLORS[6], COLORS[5]), "rgba(230, 159, 0, 0.12)"
GREY = "#dddddd"

DIGITS = {
    "dataset": "mnist5k",
    "architecture": {"name": "dcgan", "width": 8, "discriminator_normalization": "none"},
    "batch_size": 32,
    "discriminator_updates": 600,
}
RING = {
    "dataset": {"name": "ring", "std": 0.02},
    "architecture": {"name": "mlp", "width": 64, "latent_dim": 8},
    "discriminator_updates": 2000,
}
DIRAC = {"dataset": "dirac", "architecture": "dirac", "batch_size": 32}
UNSTABLE = {
    "loss": "least_squares",
    "generator_optimizer": {"lr": 0.006633488774619861},
    "ttur_ratio": 4,
    "optimizer": {"beta1": 0.4903755751775297},
}


class FewImages(GanTrainer):
    """Sees the same few training images in every batch."""

    COUNT = 16

    def _next_real(self) -> Tensor:
        self._few = getattr(self, "_few", None)
        if self._few is None:
            self._few = super()._next_real()[: self.COUNT]
        return self._few.repeat(self.config.batch_size // self.COUNT, 1, 1, 1)


class HiddenModes(GanTrainer):
    """From half of the budget on sees no real points right of the middle: three modes of eight."""

    def _next_real(self) -> Tensor:
        real = super()._next_real()
        if self._progress < 0.5:
            return real
        seen = real[real[:, 0, 0, 0] < 0.25]
        return seen[torch.arange(len(real)) % len(seen)]


class TwoDigits(GanTrainer):
    """For a while sees no real digits but 0 and 1."""

    BETWEEN = range(600, 750)

    def _next_real(self) -> Tensor:
        real = super()._next_real()
        if self.discriminator_updates not in self.BETWEEN:
            return real
        seen = real[self._train_labels()[self.state.batches.latest] < 2]
        return seen[torch.arange(len(real)) % len(seen)] if len(seen) else real


class Row(NamedTuple):
    """One diagram: the points that it draws by their labels, and a limit."""

    title: str
    series: dict[str, str]
    """Label in the legend -> name of the points."""
    limit: str | float | None = None
    """A number, or where in the event's evidence it stands."""
    log: bool = False


@dataclass(frozen=True)
class Picture:
    """One run, and how its event is drawn."""

    rows: Sequence[Row]
    settings: dict[str, Any]
    over: dict[str, Any] = field(default_factory=dict)
    every: int | None = None
    trainer: type[GanTrainer] = GanTrainer


SCORE = Row("Fréchet distance", {"": names.SCORE}, "limit")
PICTURES = {
    "divergence": Picture(
        [Row("magnitude", {
            "loss of D": "discriminator_loss", "weights of D": "discriminator_weight_norm",
        }, log=True)],
        DIGITS,
        {"loss": "wasserstein", "optimizer": {"name": "sgd", "lr": 0.0015, "momentum": 0.5},
         "discriminator_updates": 300},
        every=25,
    ),
    "mode_collapse": Picture(
        [Row("generated over real", {
            "effective modes": names.EFFECTIVE_MODES, "diversity": names.DIVERSITY,
        }, "limit"), SCORE._replace(limit=None)],
        RING,
        {"loss": "hinge", "optimizer": {"lr": 2e-3, "beta1": 0.5}},
    ),
    "mode_dropping": Picture(
        [Row("share of mode over real", {}, "limit")],
        RING,
        {"loss": "non_saturating", "optimizer": {"lr": 2e-3, "beta1": 0.5}},
        trainer=HiddenModes,
    ),
    "vanishing_gradient": Picture(
        [Row("slope of G's loss", {"": names.SLOPE}, VanishingGradient().slope, log=True),
         Row("step of G / weights", {"": "update_ratio"}, log=True)],
        DIGITS,
        {"loss": "minimax", "generator_optimizer": {"lr": 0.00663}, "ttur_ratio": 4,
         "optimizer": {"beta1": 0.5}},
    ),
    "exploding_gradient": Picture(
        [Row("gradient norm", {
            "of G": "generator_grad_norm", "of D": "discriminator_grad_norm",
        }, "limit", log=True)],
        DIGITS, UNSTABLE,
    ),
    "discriminator_overpowering": Picture(
        [Row("held-out AUC", {"": names.AUC}, "limit"), SCORE._replace(limit=None)],
        DIGITS,
        {"loss": "least_squares", "generator_optimizer": {"lr": 0.00043217656135954657},
         "n_critic": 5, "optimizer": {"beta1": 0.27008298308704637}},
    ),
    "generator_overpowering": Picture(
        [Row("held-out AUC", {"": names.AUC}, "limit"), SCORE._replace(limit=None)],
        DIGITS,
        {"loss": "wasserstein", "optimizer": {"name": "sgd", "lr": 0.003}},
    ),
    "oscillation": Picture(
        [Row("mean logit of fakes", {"": "fake_logits_mean"})],
        DIRAC,
        {"loss": "wasserstein", "optimizer": {"name": "sgd", "lr": 0.02},
         "discriminator_updates": 2000},
    ),
    "quality_drop": Picture([SCORE], DIGITS, UNSTABLE),
    "no_learning": Picture(
        [SCORE], DIGITS, {"loss": "non_saturating", "optimizer": {"lr": 1e-6, "beta1": 0.5}}
    ),
    "checkerboard": Picture(
        [Row("peak over real images, dB", {"": names.CHECKERBOARD}, "limit")],
        DIGITS,
        {"architecture": {"upsampling_kernel": 3}, "loss": "non_saturating", "ttur_ratio": 2,
         "generator_optimizer": {"lr": 0.005}, "optimizer": {"beta1": 0.5}},
    ),
    "memorization": Picture(
        [Row("C_T, standard deviations", {"": names.MEMORIZATION}, "limit")],
        {"dataset": "digits", "architecture": {"name": "mlp", "width": 128, "latent_dim": 16}},
        {"loss": "non_saturating", "optimizer": {"lr": 1e-3, "beta1": 0.5}, "batch_size": 32,
         "discriminator_updates": 4000},
        trainer=FewImages,
    ),
    "recovery": Picture(
        [SCORE._replace(log=True)],
        DIGITS,
        {"loss": "non_saturating", "optimizer": {"lr": 2e-3, "beta1": 0.5},
         "discriminator_updates": 1000},
        every=25,
        trainer=TwoDigits,
    ),
}  # fmt: skip


def spec(kind: str, picture: Picture) -> TrialSpec:
    """Return the trial that a picture is of."""
    train = TrainConfig.from_dict(merge(picture.settings, picture.over))
    budget, points = train.discriminator_updates, max(train.dataset.image_shape[1:]) == 1
    every = {} if picture.every is None else {"every": {"discriminator_updates": picture.every}}
    measure = {
        "features": "pixels" if points else "small_cnn",
        "metrics": ["frechet_distance"],
        "samples": 1000,
        "every": {"discriminator_updates": budget},
        "probe": every | ({"samples": 300} if train.dataset.name == "digits" else {}),
    }
    watched = EventsConfig.from_dict({})
    return TrialSpec(
        "pictures", kind, "c00", train, MeasureConfig.from_dict(measure, budget), watched, {}
    )


class Happened(NamedTuple):
    """A trial, its event of the kind, and where its files lie."""

    trial: TrialSpec
    record: TrialRecord
    event: Event
    folder: Path

    def values(self, name: str) -> tuple[list[int], list[float]]:
        """Return updates and values of the points of that name."""
        found = [p for p in self.record.points if p.name == name]
        return [p.discriminator_updates for p in found], [p.value for p in found]


class Samples(NamedTuple):
    """A grid or a scatter, and what is told below it."""

    pixels: Image.Image
    told: str


def samples(happened: Happened, picture: Picture) -> list[Samples]:
    """Return what was sampled before the event's onset and at its detection.

    Where copies are the point, the images that were copied stand in place of the former.
    """
    found = []
    for when, told in (("before", "before the onset"), ("at", "at its detection")):
        name = happened.record.files[f"samples_{when}_{happened.event.kind}"]
        update = int(Path(name).stem.rpartition("-")[2])
        pixels = Image.open(happened.folder / name)
        found.append(Samples(pixels, f"{told}<br>(update {update})"))
    if picture.trainer is FewImages:
        grid = sample_grid(FewImages(happened.trial.train)._next_real()[: FewImages.COUNT])
        found[0] = Samples(Image.open(io.BytesIO(grid)), "the only training images")
    return found


def run(kind: str, picture: Picture, runs: Path) -> Happened:
    """Train, unless that is done; return what happened.

    Raises:
        SystemExit: No event of the kind was detected.
    """
    trial = spec(kind, picture)
    folder = StudyFolder(runs).trial(trial.trial_id)
    torch.set_num_threads(1)
    record = run_trial(trial, folder, trainer=picture.trainer(trial.train))
    events = [event for event in record.events if event.kind == kind]
    latest = folder.latest()
    if not events or latest is None:
        raise SystemExit(f"{kind}: not detected; events {[e.kind for e in record.events]}")
    return Happened(trial, record, events[-1], latest[0].folder)


def draw(happened: Happened, picture: Picture) -> go.Figure:
    """Return the figure of one kind."""
    rows = len(picture.rows)
    first: list[Any] = [{}, {"rowspan": rows}, {"rowspan": rows}]
    figure = make_subplots(
        rows, 3, specs=[first, *[[{}, None, None]] * (rows - 1)], column_widths=[0.56, 0.22, 0.22],
        horizontal_spacing=0.02, vertical_spacing=0.1, shared_xaxes="columns",
    )  # fmt: skip
    for number, row in enumerate(picture.rows, start=1):
        draw_row(figure, number, row, happened)
        draw_moments(figure, number, happened)
    updates = {"title": {"text": "discriminator updates", "standoff": 4}}
    figure.update_xaxes(updates, row=rows, col=1)
    for column, shown in enumerate(samples(happened, picture), start=2):
        draw_samples(figure, column, shown, happened.trial.train.dataset)
    figure.update_layout(
        template="plotly_white", width=WIDTH, height=HEIGHT, font={"size": 12, "color": "black"},
        margin={"l": 76, "r": 8, "t": 36, "b": 44},
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "font": {"size": 12}},
    )  # fmt: skip
    return figure


def draw_row(figure: go.Figure, number: int, row: Row, happened: Happened) -> None:
    """Draw one diagram of signals, with its limit."""
    event = happened.event
    lost = {f"mode {mode}": names.SHARE + mode for mode in event.evidence.get("modes", ())}
    if not row.series:
        draw_others(figure, number, happened, lost)
    for (label, name), color in zip((row.series or lost).items(), LINES, strict=False):
        x, y = happened.values(name)
        figure.add_scatter(
            x=x, y=np.abs(y) if row.log else y, name=label, line={"color": color, "width": 2},
            mode="lines+markers" if name.startswith(names.PROBE) else "lines",
            marker={"size": 5}, showlegend=bool(label), row=number, col=1,
        )  # fmt: skip
    limit = event.evidence[row.limit] if isinstance(row.limit, str) else row.limit
    if limit is not None:
        dotted = {"color": "black", "dash": "dot", "width": 1.5}
        x = [0, happened.trial.train.discriminator_updates]
        figure.add_scatter(
            x=x, y=[limit] * 2, mode="lines", name="limit", line=dotted, row=number, col=1
        )
    powers = {"type": "log", "nticks": 5, "exponentformat": "power"} if row.log else {}
    from_zero = {"rangemode": "tozero"} | powers
    figure.update_yaxes(title={"text": row.title, "standoff": 2}, row=number, col=1, **from_zero)


def draw_others(figure: go.Figure, number: int, happened: Happened, lost: dict[str, str]) -> None:
    """Draw, in grey, the shares of the modes that the event is not about."""
    found = {p.name for p in happened.record.points if p.name.startswith(names.SHARE)}
    for index, name in enumerate(sorted(found - set(lost.values()))):
        x, y = happened.values(name)
        figure.add_scatter(x=x, y=y, name="other modes", mode="lines", showlegend=index == 0,
                           line={"color": "#bbbbbb", "width": 1}, row=number, col=1)  # fmt: skip


def draw_moments(figure: go.Figure, number: int, happened: Happened) -> None:
    """Draw when the event began, was detected and ended; shade how long it lasted."""
    event, budget = happened.event, happened.trial.train.discriminator_updates
    over = budget if event.ended is None else event.ended
    figure.add_vrect(event.onset, over, fillcolor=SHADE, line_width=0, layer="below",
                     row=number, col=1)  # fmt: skip
    if event.kind == "recovery":
        draw_failure(figure, number, event)
    moments = (("onset", event.onset, COLORS[4], "solid"),
               ("detected", event.detected, COLORS[1], "dash"),
               ("ended", event.ended, COLORS[2], "solid"))  # fmt: skip
    for name, update, color, dash in moments:
        if update is None:
            continue
        line = {"color": color, "width": 2, "dash": dash}
        figure.add_vline(update, line=line, row=number, col=1)
        if number == 1:  # for the legend alone
            figure.add_scatter(x=[None], y=[None], mode="lines", name=f"{name}: {update}",
                               line=line, row=1, col=1)  # fmt: skip
    figure.update_xaxes(range=[0, budget], row=number, col=1)


def draw_failure(figure: go.Figure, number: int, recovery: Event) -> None:
    """Shade in grey what a recovery is of."""
    begun, ended = recovery.evidence["onset"], recovery.onset
    figure.add_vrect(begun, ended, fillcolor=GREY, line_width=0, layer="below",
                     row=number, col=1)  # fmt: skip
    mark = {"color": GREY, "symbol": "square", "size": 12}
    figure.add_scatter(x=[None], y=[None], mode="markers", name=recovery.evidence["of"],
                       marker=mark, row=1, col=1)  # fmt: skip


def draw_samples(figure: go.Figure, column: int, picture: Samples, dataset: Dataset) -> None:
    """Draw one grid of samples; of points, with the centres of the data."""
    pixels = picture.pixels
    if max(dataset.image_shape[1:]) > 1:
        tiled = tiles(pixels, dataset.image_shape[1])
        figure.add_image(z=np.stack([tiled] * 3, axis=2), row=1, col=column)
    else:
        centers = dataset.centers().numpy() if isinstance(dataset, Mixture) else np.zeros((1, 2))
        dots = pixels.filter(ImageFilter.MaxFilter(3 if len(centers) > 1 else 5)).convert("RGB")
        figure.add_image(z=np.asarray(dots), row=1, col=column)
        x, y = ((centers * (1, -1) + 1.5) / 3 * SCATTER_SIDE - 0.5).T
        mark = {"symbol": "circle-open", "size": 14, "color": COLORS[4], "line": {"width": 2}}
        figure.add_scatter(x=x, y=y, mode="markers", marker=mark, name="modes of the data",
                           showlegend=column == 2, row=1, col=column)  # fmt: skip
    title = {"text": picture.told, "standoff": 4}
    figure.update_xaxes(title=title, showticklabels=False, row=1, col=column)
    figure.update_yaxes(showticklabels=False, row=1, col=column)


def tiles(grid: Image.Image, side: int) -> NDArray[np.uint8]:
    """Return the first 16 images of a grid of grey ones, 4 by 4 with gaps, enlarged."""
    columns, rows = grid.width // side, grid.height // side
    pixels = np.asarray(grid.convert("L")).reshape(rows, side, columns, side)
    first = pixels.transpose(0, 2, 1, 3).reshape(-1, side, side)[:SHOWN]
    first, side = np.pad(first, ((0, 0), (0, 1), (0, 1)), constant_values=GAP), side + 1
    square = first.reshape(4, 4, side, side).transpose(0, 2, 1, 3).reshape(4 * side, 4 * side)
    return np.kron(square, np.ones((2, 2), dtype=np.uint8))


def palette() -> Image.Image:
    """Return an image whose palette is that of the figures: greys, and their colours' tints."""
    parts = [ImageColor.getrgb(color) for color in COLORS[:6]]
    shade = (255, 245, 224)
    mixed = [mix(color, to, part) for color in parts for to in (WHITE, shade)
             for part in (0.0, 0.3, 0.6)]  # fmt: skip
    greys = [(value, value, value) for value in range(0, 256, 17)]
    flat = [channel for color in [*greys, shade, *mixed] for channel in color]
    carrier = Image.new("P", (1, 1))
    carrier.putpalette(flat + [255] * (768 - len(flat)))
    return carrier


def mix(color: Sequence[int], other: Sequence[int], part: float) -> tuple[int, ...]:
    """Return `color` with a part of another in it."""
    return tuple(round(a + part * (b - a)) for a, b in zip(color, other, strict=True))


def screenshot(figure: go.Figure, path: Path) -> None:
    """Write the figure as a PNG of few colours."""
    with tempfile.TemporaryDirectory() as folder:
        page, shot = Path(folder, "page.html"), Path(folder, "shot.png")
        figure.write_html(page, config={"staticPlot": True})
        page.write_text(page.read_text().replace("<body>", '<body style="margin:0">'))
        command = [*BROWSER, f"--user-data-dir={folder}/browser", f"--screenshot={shot}"]
        command += [f"--window-size={WIDTH},{HEIGHT}", page.as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        picture = Image.open(shot).convert("RGB")
        path.parent.mkdir(parents=True, exist_ok=True)
        few = picture.quantize(palette=palette(), dither=Image.Dither.NONE)
        few.save(path, optimize=True)


def told(event: Event) -> str:
    """Return the event as one line."""
    evidence = json.dumps(dict(event.evidence))
    return f"{event.onset} to {event.ended}, detected {event.detected}: {evidence}"


def main() -> None:
    """Draw the kinds that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", choices=DETECTORS.names(), action="append")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--runs", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for kind in options.kind or PICTURES:
            happened = run(kind, PICTURES[kind], options.runs or Path(folder))
            path = options.out / f"{kind}.png"
            screenshot(draw(happened, PICTURES[kind]), path)
            print(f"{path.name} ({path.stat().st_size / 1000:.0f} kB): {told(happened.event)}")


if __name__ == "__main__":
    main()
