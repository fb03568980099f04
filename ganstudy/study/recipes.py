"""Ready-made arms: settings and search spaces of published studies, by name `family/model`.

A recipe lies under everything that a study writes: recipe < base < arm, and for spaces recipe <
the study's space < the arm's. It is data: adding one is adding an entry.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from ganstudy.gan.config import merge
from ganstudy.gan.losses import Variant
from ganstudy.registry import STRICT, StudyError, only_text_keys, translate, unknown

Space = Mapping[str, Mapping[str, list[Any]]]
"""Key path -> distribution, as a study's YAML holds it."""


@dataclass(frozen=True)
class Recipe:
    """One way of training as it was published.

    Attributes:
        source: The paper.
        summary: What of it is here, and what is not.
        settings: What an arm would write; the defaults of the paper.
        spaces: Search spaces by name.
        agce_code: What the public study code did otherwise, laid over `settings`.
    """

    source: str
    summary: str
    settings: Mapping[str, Any]
    spaces: Mapping[str, Space]
    agce_code: Mapping[str, Any] = field(default_factory=dict)


class RecipeUse(pydantic.BaseModel):
    """How a study names a recipe."""

    model_config = STRICT | {"frozen": True}

    name: Annotated[str, Field(min_length=1)]
    """`family/model`, or at the top of a study a whole family: one arm per model."""
    space: Literal["wide", "narrow", "none"] = "wide"
    """Which of the published search spaces is brought along."""
    variant: Variant = "reference"
    """agce_code: losses and penalties as AGCE's public code computes them."""


@dataclass(frozen=True)
class Template:
    """What lies under an arm: settings, and the spaces as plain data."""

    settings: Mapping[str, Any]
    space: Space
    narrow: Space = field(default_factory=dict)
    """Ranges within `space` of which the study's report tells apart."""


LOG_RATE = {"wide": [1e-5, 1e-2], "narrow": [1e-4, 1e-3]}
AGCE = "Lucic et al. 2018, arXiv:1711.10337"
AGCE_SUMMARY = (
    "Ranges and defaults of the study's public code, on its network; real batches in one fixed "
    "order; the budget of its grey data sets (78,125 updates on CIFAR-10, 101,250 on CelebA). "
    "Every generator update draws its own latents, where that code, WGAN-GP aside, used the "
    "discriminator's again; and none comes before the first n_critic discriminator updates"
)


def agce(
    loss: str | Mapping[str, Any],
    *,
    lr: float,
    beta1: float = 0.5,
    n_critic: int = 1,
    batch_norm: bool = True,
    regularizers: Mapping[str, Any] | None = None,
    wide: Space | None = None,
    narrow: Space | None = None,
    agce_code: Mapping[str, Any] | None = None,
    architecture: Mapping[str, Any] | None = None,
    narrow_batch_norm: bool = True,
) -> Recipe:
    """Return one of AGCE's eight models: its authors' defaults, the wide and the narrow space."""
    norm = "batch" if batch_norm else "none"
    settings = {
        "architecture": {"name": "infogan", "width": 64, "discriminator_normalization": norm}
        | dict(architecture or {}),
        "loss": loss,
        "regularizers": dict(regularizers or {}),
        "optimizer": {"name": "adam", "lr": lr, "beta1": beta1, "beta2": 0.999},
        "n_critic": n_critic,
        "batch_size": 64,
        "data_seed": 547,
        "budget": {"discriminator_updates": 15_625},
    }
    norms = "architecture.discriminator_normalization"
    # The paper drew it for the VAE too, where it changes nothing.
    games: dict[str, Space] = {"wide": {}, "narrow": {}}
    if loss != "vae":
        games["wide"] = {"n_critic": {"choice": [1, 5]}}
        games["narrow"] = {"n_critic": {"choice": [1]}}
    spaces: dict[str, Space] = {
        "wide": {
            "optimizer.lr": {"log_uniform": LOG_RATE["wide"]},
            "optimizer.beta1": {"uniform": [0.0, 1.0]},
            **games["wide"],
            norms: {"choice": ["batch", "none"]},
            **(wide or {}),
        },
        # One value each: the arm's defaults may lie elsewhere, as the paper's do.
        "narrow": {
            "optimizer.lr": {"log_uniform": LOG_RATE["narrow"]},
            "optimizer.beta1": {"choice": [0.5]},
            **games["narrow"],
            norms: {"choice": ["batch", "none"] if narrow_batch_norm else ["none"]},
            **(narrow or {}),
        },
        "none": {},
    }
    return Recipe(AGCE, AGCE_SUMMARY, settings, spaces, agce_code or {})


def penalised(name: str, loss: str, **options: Any) -> Recipe:
    """Return AGCE's WGAN-GP or DRAGAN: a loss with a penalty whose weight is tuned."""
    weight = f"regularizers.{name}.weight"
    return agce(
        loss,
        lr=1e-4,
        regularizers={name: {}},
        wide={weight: {"log_uniform": [0.1, 100.0]}},
        narrow={weight: {"log_uniform": [0.1, 10.0]}},
        narrow_batch_norm=False,
        agce_code={"regularizers": {name: {"variant": "agce_code"}}},
        **options,
    )


RECIPES: dict[str, Recipe] = {
    "agce/minimax": agce("minimax", lr=5e-5, beta1=0.0),
    "agce/non_saturating": agce("non_saturating", lr=5e-5, beta1=0.0),
    "agce/least_squares": agce(
        "least_squares", lr=2e-4, agce_code={"loss": {"variant": "agce_code"}}
    ),
    "agce/wgan": agce(
        "wasserstein",
        lr=5e-5,
        n_critic=5,
        regularizers={"weight_clip": {"limit": 0.01}},
        wide={"regularizers.weight_clip.limit": {"log_uniform": [1e-3, 1.0]}},
        narrow={"regularizers.weight_clip.limit": {"log_uniform": [1e-2, 1.0]}},
    ),
    "agce/wgan_gp": penalised("gradient_penalty", "wasserstein", n_critic=5, batch_norm=False),
    "agce/dragan": penalised("dragan", "non_saturating"),
    "agce/began": agce(
        "boundary_equilibrium",
        lr=1e-4,
        n_critic=5,
        batch_norm=False,
        wide={
            "loss.gamma": {"uniform": [0.0, 1.0]},
            "loss.k_rate": {"log_uniform": [1e-4, 1e-2]},
        },
        narrow={"loss.gamma": {"uniform": [0.6, 0.9]}, "loss.k_rate": {"choice": [1e-3]}},
        agce_code={"loss": {"variant": "agce_code"}},
    ),
    "agce/vae": agce(
        "vae",
        lr=5e-5,
        architecture={"prior": "normal", "generator_slope": 0.0},
        agce_code={"loss": {"variant": "agce_code"}},
    ),
}

KURACH = "Kurach et al. 2019, arXiv:1807.04720"
KURACH_SUMMARY = (
    "One cell of its grid of loss, penalty and normalisation, with the ranges of its bandit, on "
    "SNDCGAN, whose images have sides that are multiples of 8; hinge came only with its code's "
    "last release. Its own DRAGAN (centred uniform noise, clipped) is not here"
)
KURACH_PENALTIES: dict[str, tuple[dict[str, Any], list[float]]] = {
    "none": ({}, []),
    "gradient_penalty": ({"gradient_penalty": {}}, [0.1, 100.0]),
    "dragan": ({"dragan": {}}, [0.1, 100.0]),
    "l2": ({"l2": {"mean_over_kernels": True}}, [1e-4, 10.0]),
}
KURACH_NORMALIZATIONS: dict[str, dict[str, Any]] = {
    "none": {"discriminator_normalization": "none", "spectral_norm": False},
    "batch": {"discriminator_normalization": "batch", "spectral_norm": False},
    "layer": {"discriminator_normalization": "layer", "spectral_norm": False},
    "spectral": {"discriminator_normalization": "none", "spectral_norm": True},
}
KURACH_LOSSES = ("non_saturating", "least_squares", "wasserstein", "hinge")


def kurach(loss: str, penalty: str, normalization: str) -> Recipe:
    """Return one cell of Kurach's grid."""
    regularizers, weights = KURACH_PENALTIES[penalty]
    networks = {"name": "sndcgan", "latent_dim": 128, "prior": "uniform"}
    settings = {
        "architecture": networks | KURACH_NORMALIZATIONS[normalization],
        "loss": loss,
        "regularizers": regularizers,
        "optimizer": {"name": "adam", "lr": 2e-4, "beta1": 0.5, "beta2": 0.999},
        "n_critic": 1,
        "batch_size": 64,
        "budget": {"discriminator_updates": 200_000},
    }
    wide: dict[str, Mapping[str, list[Any]]] = {
        "optimizer.lr": {"log_uniform": LOG_RATE["wide"]},
        "optimizer.beta1": {"uniform": [0.0, 1.0]},
        "optimizer.beta2": {"uniform": [0.0, 1.0]},
        "n_critic": {"choice": [1, 5]},
    }
    code: dict[str, Any] = {}
    if weights:
        wide[f"regularizers.{penalty}.weight"] = {"log_uniform": weights}
    if penalty == "gradient_penalty":
        code["regularizers"] = {penalty: {"variant": "agce_code"}}
    if loss == "least_squares":
        code["loss"] = {"variant": "agce_code"}
    return Recipe(KURACH, KURACH_SUMMARY, settings, {"wide": wide, "none": {}}, code)


RECIPES |= {
    f"kurach/{loss}-{penalty}-{normalization}": kurach(loss, penalty, normalization)
    for loss, penalty, normalization in itertools.product(
        KURACH_LOSSES, KURACH_PENALTIES, KURACH_NORMALIZATIONS
    )
}
RECIPES["r3gan/baseline"] = Recipe(
    "Huang et al. 2024, arXiv:2501.05441",
    "Relativistic pairing with R1 and R2, beta1 0, no normalisation in the discriminator; its own "
    "networks and its annealing are not included, and the two weights are drawn separately",
    {
        "architecture": {"name": "dcgan", "discriminator_normalization": "none"},
        "loss": "relativistic_pairing",
        "regularizers": {"r1": {"weight": 1.0}, "r2": {"weight": 1.0}},
        "stabilizers": {"ema": {}},
        "optimizer": {"name": "adam", "lr": 2e-4, "beta1": 0.0, "beta2": 0.99},
        "n_critic": 1,
    },
    {
        "wide": {
            "optimizer.lr": {"log_uniform": LOG_RATE["wide"]},
            "regularizers.r1.weight": {"log_uniform": [1e-2, 100.0]},
            "regularizers.r2.weight": {"log_uniform": [1e-2, 100.0]},
        },
        "none": {},
    },
)


def parse_use(value: object) -> RecipeUse:
    """Read what a study writes under `recipe`: a name, or a mapping with `name`."""
    if isinstance(value, str):
        value = {"name": value}
    if not isinstance(value, Mapping):
        raise StudyError("", f"a recipe is a name or {{name: ..., space: ...}}, got {value!r}")
    try:
        return RecipeUse(**only_text_keys(value))
    except pydantic.ValidationError as error:
        raise translate(error, "key of a recipe", RecipeUse.model_fields) from None


@functools.cache
def families() -> dict[str, list[str]]:
    """Return family -> the names of its models."""
    found: dict[str, list[str]] = {}
    for name in RECIPES:
        family, _, model = name.partition("/")
        found.setdefault(family, []).append(model)
    return found


def templates(value: object) -> dict[str, Template]:
    """Return arm name -> template for a study's own `recipe`: a family, or one of its models."""
    use = parse_use(value)
    if use.name in RECIPES:
        return {use.name.partition("/")[2]: template(use)}
    if use.name not in families():
        raise StudyError("", unknown("recipe", use.name, [*families(), *RECIPES]))
    return {
        model: template(use.model_copy(update={"name": f"{use.name}/{model}"}))
        for model in families()[use.name]
    }


def template(value: object) -> Template:
    """Return the template that an arm's `recipe` names.

    Raises:
        StudyError: For an unknown recipe, with the nearest one, or a space that it does not have.
    """
    use = value if isinstance(value, RecipeUse) else parse_use(value)
    if use.name in families():
        first = f"{use.name}/{families()[use.name][0]}"
        rule = f"{use.name} is a family of recipes: name it at the top of the study, or one model"
        raise StudyError("", f"{rule}, {first} say")
    if use.name not in RECIPES:
        raise StudyError("", unknown("recipe", use.name, RECIPES))
    recipe = RECIPES[use.name]
    if use.space not in recipe.spaces:
        raise StudyError("space", unknown("space of this recipe", use.space, recipe.spaces))
    code = recipe.agce_code if use.variant == "agce_code" else {}
    narrow = recipe.spaces.get("narrow", {}) if use.space == "wide" else {}
    return Template(merge(recipe.settings, code), recipe.spaces[use.space], narrow)
