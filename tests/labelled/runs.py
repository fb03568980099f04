"""The runs: which games are played, what is planted in them and what that makes of them.

Two parts that share no data set, no loss and no size of a fault (minimax aside, without which no
gradient vanishes): `choose`, to choose the detectors' parameters by, and `publish`, for the
published figures. A third, `long`, holds healthy runs of 3,000 updates and more, on which false
alarms are counted by the length of the run.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from ganstudy.gan.config import TrainConfig, merge
from ganstudy.gan.seeding import derive
from ganstudy.measure.events import DETECTORS, EventsConfig
from ganstudy.measure.protocol import MeasureConfig
from ganstudy.trial import TrialSpec
from tests.labelled import faults as plant
from tests.labelled.faults import Fault

Part = Literal["choose", "publish", "long"]
Check = Literal["fork", "fresh", "longer"]
NETWORKS = (
    plant.NonFinite,
    plant.Scale,
    plant.Kick,
    plant.LearningRate,
    plant.OverTrain,
)
"""Faults of the networks; all others are of samples."""


@dataclass(frozen=True)
class Game:
    """One way to train, by the keys of a study's `base`.

    Attributes:
        steady: Whether it is regularised so that it is known to converge: gradients that vanish
            or explode, or a cycle, are out of the question unless they are planted.
    """

    settings: Mapping[str, Any]
    steady: bool = True

    def but(self, **settings: Any) -> Game:
        """Return this game with some settings changed, by the study's own grammar."""
        return replace(self, settings=merge(self.settings, settings))


def unsteady(game: Game) -> Game:
    """Return the game as one that may or may not converge."""
    return replace(game, steady=False)


@dataclass(frozen=True)
class Story:
    """What happens in a family of runs, whatever the part.

    Attributes:
        games: The role of the games that it is played with.
        true: Kinds that the planted fault brings about by its nature.
        false: Kinds that are out of the question.
        checks: Interventions after the run.
    """

    name: str
    games: str
    true: tuple[str, ...] = ()
    false: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()


@dataclass(frozen=True)
class Family:
    """Runs of one story; games and faults are taken in turns."""

    story: Story
    count: int
    games: tuple[Game, ...]
    faults: tuple[Fault | None, ...] = (None,)

    @property
    def name(self) -> str:
        """The story's."""
        return self.story.name


@dataclass(frozen=True)
class Run:
    """One run."""

    part: Part
    family: Family
    index: int
    game: Game = field(init=False)
    fault: Fault | None = field(init=False)

    def __post_init__(self) -> None:
        """Take game and fault; each round of the games moves the faults on by one."""
        games, faults, i = self.family.games, self.family.faults, self.index
        object.__setattr__(self, "game", games[i % len(games)])
        object.__setattr__(self, "fault", faults[(i + i // len(games)) % len(faults)])

    @property
    def name(self) -> str:
        """Unique within a part."""
        return f"{self.family.name}-{self.index:03d}"

    @property
    def seed(self) -> int:
        """A seed of its own."""
        return derive("labelled", self.part, self.name) % 2**31

    @property
    def faulty_networks(self) -> bool:
        """Whether a fault of the networks is planted."""
        return isinstance(self.fault, NETWORKS)

    def spec(self) -> TrialSpec:
        """Return the trial."""
        train = TrainConfig.from_dict({**self.game.settings, "seed": self.seed})
        budget = train.discriminator_updates
        points = max(train.dataset.image_shape[1:]) == 1
        measure = {
            "features": "pixels" if points else "small_cnn",
            "metrics": ["frechet_distance"],
            "every": {"discriminator_updates": budget},
        }
        watching = {"detectors": dict.fromkeys(DETECTORS.names())}
        return TrialSpec(
            study=self.part,
            arm=self.family.name,
            config_id=f"{self.index:03d}",
            train=train,
            measure=MeasureConfig.from_dict(measure, budget),
            events=EventsConfig.from_dict(watching),
            params={},
        )


LOOKED_AT = frozenset((Path(__file__).parent / "looked_at.txt").read_text("utf-8").split())
"""Runs of `publish` that were looked at while parameters were still changed: thrown away."""


def runs(part: Part) -> Iterator[Run]:
    """Yield the runs of a part, family by family."""
    for family in PARTS[part]:
        made = (Run(part, family, index) for index in itertools.count())
        unseen = (run for run in made if part == "choose" or run.name not in LOOKED_AT)
        yield from itertools.islice(unseen, family.count)


def adam(lr: float = 2e-3, beta1: float = 0.0) -> dict[str, Any]:
    """Return Adam's settings, quick ones: these runs are short."""
    return {"name": "adam", "lr": lr, "beta1": beta1}


def average(halflife_images: float = 2000.0) -> dict[str, Any]:
    """Return an average of the generator as short as the runs are."""
    return {"ema": {"halflife_images": halflife_images}}


def r1(weight: float) -> dict[str, Any]:
    """Return the penalty R1, at every fourth update."""
    return {"r1": {"weight": weight, "interval": 4}}


def mlp(latent_dim: int = 8, **options: Any) -> dict[str, Any]:
    """Return a small multi-layer perceptron."""
    return {"name": "mlp", "width": 64, "latent_dim": latent_dim, **options}


def game(dataset: Mapping[str, Any], loss: str, **settings: Any) -> Game:
    """Return a steady game of 400 updates on `dataset`, with the defaults of these runs."""
    base = {
        "dataset": dict(dataset),
        "architecture": mlp(),
        "optimizer": adam(),
        "stabilizers": average(),
        "discriminator_updates": 400,
    }
    return Game(merge(base, {"loss": loss, **settings}))


def longer(games: tuple[Game, ...], *budgets: int) -> tuple[Game, ...]:
    """Return the games once at each budget."""
    return tuple(g.but(discriminator_updates=b) for b in budgets for g in games)


def sgd_generator(lr: float) -> dict[str, Any]:
    """Return optimisers under which a gradient that vanishes is one: Adam divides sizes out."""
    return {
        "generator_optimizer": {"name": "sgd", "lr": lr},
        "discriminator_optimizer": adam(),
    }


def dirac(lr: float, **settings: Any) -> Game:
    """Return the smallest game, by gradient descent."""
    base = {
        "dataset": "dirac",
        "architecture": "dirac",
        "optimizer": {"name": "sgd", "lr": lr},
        "batch_size": 2,
        "loss": "wasserstein",
    }
    return Game(merge(base, settings))


STORIES = (
    # Nothing goes wrong, though some of it looks so.
    Story("healthy_points", "points", checks=("fresh",)),
    Story("healthy_images", "images"),
    Story("held_out", "quick_images", false=("memorization",)),
    Story("faint_pattern", "quick_images", false=("checkerboard",)),
    Story("short", "points"),
    Story("slow", "points"),
    Story("nudged", "points", false=("exploding_gradient",)),
    Story("spiral", "spirals", false=("oscillation",)),
    Story("not_saturating", "unsteady", false=("vanishing_gradient",), checks=("fork",)),
    # What is sampled is spoilt.
    Story("constant", "points", true=("mode_collapse",)),
    Story("squeezed", "points", true=("mode_collapse",)),
    Story("removed", "points", true=("mode_dropping",)),
    Story("removed_classes", "images", true=("mode_dropping",)),
    Story("noisy", "points"),
    Story("rotating", "turning", true=("oscillation",)),
    Story("pattern", "quick_images", true=("checkerboard",)),
    Story("copies", "quick_images", true=("memorization",)),
    Story("passing_collapse", "points", true=("mode_collapse",)),
    Story("passing_removal", "points", true=("mode_dropping",)),
    Story("passing_noise", "points", true=("quality_drop",)),
    # The training itself is spoilt.
    Story("not_finite", "points", true=("divergence",)),
    Story("blown_up", "points"),
    Story("run_away", "explosive"),
    Story("scaled", "points", true=("exploding_gradient",)),
    Story("unlearning", "points", true=("no_learning",)),
    Story("starved", "points", true=("generator_overpowering",), checks=("fresh",)),
    Story("vanished", "minimax", true=("vanishing_gradient",)),
    Story("overpowered", "saturating", true=("discriminator_overpowering",), checks=("fork",)),
    Story("cycling", "cycles", true=("oscillation",)),
    # Nothing is planted, and nobody would call it steady.
    Story("wild", "wild", checks=("longer",)),
    # Nothing goes wrong for as long as studies train.
    Story("long_ring", "long_ring", checks=("fresh",)),
    Story("longest_ring", "longest_ring", checks=("fresh",)),
    Story("long_mnist5k", "long_mnist5k"),
    Story("long_stacked_mnist", "long_stacked_mnist"),
)


def _each(fault: type[Fault], at: tuple[int, ...], *sizes: Mapping[str, Any]) -> Any:
    """Return the fault at every size, the updates at which it begins taken in turns."""
    count = len(at) * len(sizes)
    return tuple(fault(at=at[i % len(at)], **sizes[i % len(sizes)]) for i in range(count))


def _sizes(*sizes: float, **options: Any) -> tuple[dict[str, Any], ...]:
    return tuple({"size": size, **options} for size in sizes)


def _passing(
    fault: type[Fault], at: tuple[int, ...], lasts: tuple[int, ...], **options: Any
) -> Any:
    """Return the fault at every update, each time for one of the lengths."""
    return tuple(
        fault(at=begin, until=begin + lasts[i % len(lasts)], **options)
        for i, begin in enumerate(at * len(lasts))
    )


def _families(
    games: Mapping[str, tuple[Game, ...]], planted: Mapping[str, tuple[int, tuple[Any, ...]]]
) -> tuple[Family, ...]:
    """Return a part's families: story -> how many runs, and what is planted in them."""
    return tuple(
        Family(story, planted[story.name][0], games[story.games], planted[story.name][1])
        for story in STORIES
        if story.name in planted
    )


NOTHING = (None,)
GENERATOR, DISCRIMINATOR = {"role": "generator"}, {"role": "discriminator"}
ONLY_DISCRIMINATOR = {"roles": ("discriminator",)}
ONLY_GENERATOR = {"roles": ("generator",)}

# ------------------------------------------------------------------------- choose: ring, digits

RINGS = tuple({"name": "ring", "std": std} for std in (0.03, 0.01))
MANY_MODES = tuple({"name": "ring", "std": 0.01, "components": k} for k in (16, 24))
DIGITS = {"name": "digits"}
RING_GAMES = (
    game(RINGS[0], "non_saturating", regularizers=r1(0.1)),
    game(RINGS[1], "hinge", regularizers=r1(0.3)),
    game(RINGS[1], "non_saturating", regularizers=r1(0.3)),
    game(RINGS[0], "hinge", regularizers=r1(0.1)),
    game(MANY_MODES[0], "non_saturating", regularizers=r1(0.1)),
    game(MANY_MODES[1], "hinge", regularizers=r1(0.1)),
)
DIGITS_GAMES = (
    game(DIGITS, "non_saturating", regularizers=r1(1.0), architecture=mlp(16)),
    game(DIGITS, "hinge", regularizers=r1(1.0), architecture=mlp(16)),
    game(DIGITS, "hinge", architecture=mlp(16, spectral_norm=True)),
)
CHOOSE_GAMES = {
    "points": (*RING_GAMES, DIGITS_GAMES[0]),
    "images": tuple(g.but(discriminator_updates=500) for g in DIGITS_GAMES),
    "quick_images": DIGITS_GAMES[:2],
    "turning": tuple(g.but(discriminator_updates=650) for g in (*RING_GAMES, DIGITS_GAMES[0])),
    "unsteady": tuple(
        unsteady(game(DIGITS, loss, architecture=mlp(16))) for loss in ("non_saturating", "hinge")
    ),
    "minimax": tuple(
        unsteady(game(DIGITS, "minimax", architecture=mlp(16), **sgd_generator(lr)))
        for lr in (0.3, 0.2)
    ),
    "saturating": (unsteady(game(DIGITS, "minimax", architecture=mlp(16))),),
    "explosive": tuple(
        unsteady(game(RINGS[0], loss, optimizer={"name": "sgd", "lr": lr}, regularizers=r1(10.0)))
        for loss, lr in (("non_saturating", 3.0), ("hinge", 1.0))
    ),
    "wild": tuple(
        unsteady(game(dataset, loss, optimizer=adam(lr, beta1)))
        for dataset, loss, lr, beta1 in (
            (RINGS[0], "non_saturating", 1e-3, 0.5),
            (RINGS[1], "hinge", 5e-3, 0.0),
            (DIGITS, "hinge", 1e-2, 0.5),
            (DIGITS, "non_saturating", 3e-4, 0.9),
            (RINGS[0], "hinge", 3e-4, 0.5),
            (DIGITS, "non_saturating", 3e-2, 0.0),
        )
    ),
}
AT = (150, 200, 250)
CHOOSE = {
    "healthy_points": (42, NOTHING),
    "healthy_images": (16, NOTHING),
    "held_out": (4, _each(plant.Stored, (150,), {"split": "report", "size": 0.0})),
    "faint_pattern": (6, _each(plant.Pattern, AT, *_sizes(2.0, 3.0))),
    "short": (
        8,
        _passing(plant.Constant, AT, (25, 50), size=0.01)
        + _passing(plant.Noise, AT, (50, 25), size=0.4),
    ),
    "slow": (4, _each(plant.LearningRate, (0,), *_sizes(0.2, 0.1))),
    "nudged": (3, _each(plant.Scale, AT, *_sizes(1.3, **DISCRIMINATOR))),
    "not_saturating": (5, _each(plant.OverTrain, (200,), {"size": 1, "burst": 200, "rate": 5.0})),
    "constant": (8, _each(plant.Constant, AT, *_sizes(0.0, 0.01))),
    "squeezed": (
        12,
        _each(plant.Squeeze, AT, {"size": 0.95, "anchors": 1}, {"size": 0.97, "anchors": 2}),
    ),
    "removed": (
        8,
        _each(
            plant.Remove,
            AT,
            {"size": 1.0, "modes": (0,)},
            {"size": 0.97, "modes": (1, 4)},
            {"size": 1.0, "modes": (2, 3, 6)},
        ),
    ),
    "removed_classes": (
        4,
        _each(plant.Remove, (200,), {"modes": (0, 3)}, {"modes": (2, 5, 8)}, {"modes": (1, 6)}),
    ),
    "noisy": (6, _each(plant.Noise, AT, *_sizes(0.4, 0.6))),
    "rotating": (
        12,
        _each(plant.Rotate, (75, 100), {"size": 0.9, "period": 125}, {"size": 1.0, "period": 150}),
    ),
    "pattern": (11, _each(plant.Pattern, AT, *_sizes(12.0, 20.0), {"size": 15.0, "period": 4})),
    "copies": (
        11,
        _each(plant.Stored, AT, {"size": 0.0}, {"size": 0.05}, {"size": 0.0, "share": 0.7}),
    ),
    "passing_collapse": (5, _passing(plant.Constant, (150, 200), (100, 125), size=0.01)),
    "passing_removal": (4, _passing(plant.Remove, (150, 200), (100, 125), modes=(2, 3, 6))),
    "passing_noise": (5, _passing(plant.Noise, (150, 200), (125, 100), size=0.45)),
    "not_finite": (10, _each(plant.NonFinite, AT, GENERATOR, DISCRIMINATOR)),
    "blown_up": (9, _each(plant.LearningRate, AT, *_sizes(200.0, 1000.0))),
    "run_away": (4, NOTHING),
    "scaled": (11, _each(plant.Scale, AT, *_sizes(9.0, 12.0, **DISCRIMINATOR))),
    "unlearning": (
        11,
        _each(plant.LearningRate, (0,), {"size": 0.0}, {"size": 1e-4, **ONLY_GENERATOR}),
    ),
    "starved": (12, _each(plant.LearningRate, AT, *_sizes(0.0, 1e-3, **ONLY_DISCRIMINATOR))),
    "vanished": (
        22,
        _each(plant.OverTrain, (125, 150, 175), *_sizes(1, 2, burst=200, rate=5.0)),
    ),
    "overpowered": (
        12,
        _each(plant.LearningRate, (200,), *_sizes(20.0, 25.0, **ONLY_DISCRIMINATOR)),
    ),
    "wild": (18, NOTHING),
}

# ----------------------------------------------------------- publish: grid, mnist5k and dirac

GRIDS = tuple(
    {"name": "grid", "side": side, "std": std} for side, std in ((3, 0.03), (5, 0.02), (4, 0.01))
)
MNIST = {"name": "mnist5k"}
GP = {"gradient_penalty": {"weight": 1.0}}
GRID_GAMES = (
    game(GRIDS[0], "least_squares", regularizers=r1(0.1)),
    game(GRIDS[1], "relativistic_pairing", regularizers=r1(0.1)),
    game(GRIDS[2], "wasserstein", regularizers=GP, optimizer=adam(1e-3), ttur_ratio=4.0),
    game(GRIDS[0], "relativistic_average", regularizers=r1(0.2)),
    game(GRIDS[1], "wasserstein", regularizers=r1(1.0)),
    game(GRIDS[2], "least_squares", regularizers=r1(0.2)),
)
MNIST_MLP = mlp(16, initialization="xavier")
DCGAN = {
    "name": "dcgan",
    "width": 8,
    "latent_dim": 16,
    "discriminator_normalization": "none",
    "initialization": "xavier",
}
MNIST_GAMES = tuple(
    game(
        MNIST,
        loss,
        architecture=DCGAN,
        regularizers=r1(1.0),
        optimizer=adam(4e-3),
        stabilizers=average(1000.0),
        batch_size=32,
    )
    for loss in ("relativistic_pairing", "least_squares", "relativistic_average")
)
PUBLISH_GAMES = {
    "points": GRID_GAMES,
    "images": MNIST_GAMES,
    "quick_images": tuple(
        game(MNIST, loss, architecture=MNIST_MLP, regularizers=r1(5.0), discriminator_updates=300)
        for loss in ("relativistic_pairing", "relativistic_average")
    ),
    "turning": tuple(g.but(discriminator_updates=700) for g in GRID_GAMES),
    "unsteady": tuple(
        unsteady(game(MNIST, loss, architecture=MNIST_MLP))
        for loss in ("relativistic_pairing", "least_squares")
    ),
    "minimax": tuple(
        unsteady(
            game(
                MNIST,
                "minimax",
                architecture=MNIST_MLP,
                regularizers=r1(1.0),
                discriminator_updates=300,
                **sgd_generator(lr),
            )
        )
        for lr in (0.5, 1.0)
    ),
    "saturating": (
        unsteady(game(MNIST, "minimax", architecture=MNIST_MLP, regularizers=r1(1.0))),
    ),
    "spirals": tuple(
        dirac(lr, regularizers={"r1": {"weight": weight}}, discriminator_updates=600)
        for lr, weight in ((0.1, 0.1), (0.2, 0.05), (0.15, 0.2))
    ),
    "cycles": tuple(
        dirac(lr, discriminator_updates=budget)
        for lr, budget in ((0.02, 1500), (0.03, 1200), (0.04, 900), (0.025, 1200))
    ),
    "explosive": (
        *(unsteady(dirac(lr, simultaneous=True)) for lr in (0.15, 0.3)),
        *(
            unsteady(
                game(GRIDS[0], loss, optimizer={"name": "sgd", "lr": lr}, regularizers=r1(8.0))
            )
            for loss, lr in (("least_squares", 2.0), ("wasserstein", 4.0))
        ),
    ),
    "wild": tuple(
        unsteady(game(dataset, loss, optimizer=adam(lr, beta1), **more))
        for dataset, loss, lr, beta1, more in (
            (GRIDS[1], "relativistic_pairing", 1e-3, 0.5, {}),
            (GRIDS[0], "least_squares", 4e-3, 0.0, {}),
            (GRIDS[2], "wasserstein", 1e-3, 0.0, {"regularizers": {"weight_clip": {}}}),
            (GRIDS[0], "relativistic_average", 4e-4, 0.9, {}),
            (GRIDS[1], "wasserstein", 2e-3, 0.0, {"regularizers": GP}),
            (MNIST, "least_squares", 2e-3, 0.0, {"architecture": MNIST_MLP}),
            (GRIDS[2], "least_squares", 2e-2, 0.5, {}),
            (MNIST, "relativistic_pairing", 2e-2, 0.0, {"architecture": MNIST_MLP}),
        )
    ),
}
LATER = (175, 225, 275)
PUBLISH = {
    "healthy_points": (126, NOTHING),
    "healthy_images": (12, NOTHING),
    "held_out": (12, _each(plant.Stored, (125,), {"split": "report", "size": 0.0})),
    "faint_pattern": (15, _each(plant.Pattern, (125, 175), *_sizes(1.5, 2.5, 3.5))),
    "short": (
        20,
        _passing(plant.Constant, LATER, (50, 25), size=0.02)
        + _passing(plant.Noise, LATER, (25, 50), size=0.7)
        + _passing(plant.Remove, LATER, (50, 25), modes=(1, 5)),
    ),
    "slow": (10, _each(plant.LearningRate, (0,), *_sizes(0.25, 0.12))),
    "nudged": (8, _each(plant.Scale, LATER, *_sizes(1.5, **DISCRIMINATOR))),
    "spiral": (15, NOTHING),
    "not_saturating": (6, _each(plant.OverTrain, (200,), {"size": 1, "burst": 150, "rate": 4.0})),
    "constant": (24, _each(plant.Constant, LATER, *_sizes(0.002, 0.02))),
    "squeezed": (
        30,
        _each(plant.Squeeze, LATER, {"size": 0.93, "anchors": 1}, {"size": 0.98, "anchors": 2}),
    ),
    "removed": (
        32,
        _each(
            plant.Remove,
            LATER,
            {"size": 1.0, "modes": (4,)},
            {"size": 0.95, "modes": (0, 5)},
            {"size": 1.0, "modes": (1, 3, 7, 8)},
        ),
    ),
    "noisy": (16, _each(plant.Noise, LATER, *_sizes(0.5, 0.8))),
    "rotating": (
        20,
        _each(
            plant.Rotate, (125, 150), {"size": 0.95, "period": 140}, {"size": 1.0, "period": 110}
        ),
    ),
    "pattern": (
        32,
        _each(
            plant.Pattern,
            (125, 175),
            *_sizes(10.0, 15.0, 25.0),
            {"size": 13.0, "period": 4},
            {"size": 18.0, "period": 4},
        ),
    ),
    "copies": (
        32,
        _each(
            plant.Stored,
            (125, 175),
            {"size": 0.02},
            {"size": 0.1},
            {"size": 0.0, "share": 0.8},
        ),
    ),
    "passing_collapse": (14, _passing(plant.Constant, (125, 175), (100, 150), size=0.02)),
    "passing_removal": (12, _passing(plant.Remove, (125, 175), (100, 150), modes=(0, 4, 6))),
    "passing_noise": (12, _passing(plant.Noise, (125, 175), (150, 100), size=0.7)),
    "not_finite": (48, _each(plant.NonFinite, LATER, GENERATOR, DISCRIMINATOR)),
    "blown_up": (24, _each(plant.LearningRate, LATER, *_sizes(100.0, 500.0))),
    "run_away": (16, NOTHING),
    "scaled": (34, _each(plant.Scale, LATER, *_sizes(10.0, 16.0, **DISCRIMINATOR))),
    "unlearning": (
        32,
        _each(
            plant.LearningRate,
            (0,),
            {"size": 1e-6},
            {"size": 3e-4, **ONLY_GENERATOR},
            {"size": 0.0, **ONLY_GENERATOR},
        ),
    ),
    "starved": (34, _each(plant.LearningRate, LATER, *_sizes(5e-4, 2e-3, **ONLY_DISCRIMINATOR))),
    "vanished": (
        78,
        _each(plant.OverTrain, (100, 125, 150), *_sizes(1, burst=300, rate=2.0)),
    ),
    "overpowered": (
        36,
        _each(plant.LearningRate, (200,), *_sizes(8.0, 12.0, **ONLY_DISCRIMINATOR)),
    ),
    "cycling": (14, NOTHING),
    "wild": (16, NOTHING),
}

# ------------------------------------------- long: ring, and DCGANs on mnist5k and stacked_mnist

LONG_UPDATES = 3000
LONGEST_UPDATES = 15_625
"""AGCE's budget on MNIST: 20 epochs of 60,000 images in batches of 64 (arXiv:1711.10337)."""
LONG_LOSSES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("non_saturating", {"regularizers": r1(0.3)}),
    ("hinge", {"regularizers": r1(0.3)}),
    ("least_squares", {"regularizers": r1(0.1)}),
    ("wasserstein", {"regularizers": GP, "ttur_ratio": 4.0}),
)
LONG_RINGS = tuple(
    game(
        RINGS[0],
        loss,
        optimizer=adam(1e-3),
        discriminator_updates=LONG_UPDATES,
        **settings,
    )
    for loss, settings in LONG_LOSSES
)
LONG_DCGAN = {**DCGAN, "width": 16, "latent_dim": 64}


def _long_images(
    dataset: Mapping[str, Any], optimizer: Mapping[str, Any], r1_weight: float
) -> tuple[Game, ...]:
    """Return DCGANs of four losses; Wasserstein has the gradient penalty, the others R1."""
    base = game(
        dataset,
        "non_saturating",
        architecture=LONG_DCGAN,
        optimizer=optimizer,
        stabilizers=average(4000.0),
        batch_size=32,
        discriminator_updates=LONG_UPDATES,
    )
    steady = tuple(
        base.but(loss=loss, regularizers=r1(r1_weight))
        for loss in ("non_saturating", "hinge", "least_squares")
    )
    penalty = {"gradient_penalty": {"weight": 10.0}}
    return (*steady, base.but(loss="wasserstein", regularizers=penalty))


LONG_GAMES = {
    "long_ring": LONG_RINGS,
    "longest_ring": tuple(g.but(discriminator_updates=LONGEST_UPDATES) for g in LONG_RINGS),
    "long_mnist5k": _long_images(MNIST, adam(5e-4, 0.5), 1.0),
    # At the rates of mnist5k these generators lose the digit 1, and are not healthy.
    "long_stacked_mnist": _long_images({"name": "stacked_mnist"}, adam(2e-3), 0.3),
}
LONG = {
    "long_ring": (16, NOTHING),
    "longest_ring": (12, NOTHING),
    "long_mnist5k": (12, NOTHING),
    "long_stacked_mnist": (17, NOTHING),
}
PARTS: dict[Part, tuple[Family, ...]] = {
    "choose": _families(CHOOSE_GAMES, CHOOSE),
    "publish": _families(PUBLISH_GAMES, PUBLISH),
    "long": _families(LONG_GAMES, LONG),
}
