"""What "Are GANs Created Equal?" printed, beside what this study found (arXiv:1711.10337)."""

from __future__ import annotations

import csv
import functools
import math
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from analysis.page import NONE, Part, Section, Table, number
from analysis.seeds import BestConfig, best_configs
from analysis.tables import Study

MODELS = {
    ("minimax", ""): "minimax",
    ("non_saturating", ""): "non_saturating",
    ("least_squares", ""): "least_squares",
    ("wasserstein", "weight_clip"): "wgan",
    ("wasserstein", "gradient_penalty"): "wgan_gp",
    ("non_saturating", "dragan"): "dragan",
    ("boundary_equilibrium", ""): "began",
    ("vae", ""): "vae",
}
"""Loss and regularisers -> the paper's model."""
CODE_DIFFERS = frozenset({"least_squares", "wgan_gp", "dragan", "began", "vae"})
"""Models whose loss or penalty the paper's public code computes otherwise than it prints."""
DATASETS = {
    "mnist": "mnist", "mnist5k": "mnist", "fashion_mnist": "fashion_mnist",
    "cifar10": "cifar10", "celeba": "celeba",
}  # fmt: skip
"""Our data set -> the paper's that it is, or is a part of."""
PARTS = {"mnist5k": "5,000 of the 70,000 digits"}
UPDATES = {
    "mnist": 15_625, "fashion_mnist": 15_625, "cifar10": 78_125, "celeba": 101_250,
}  # fmt: skip
"""Discriminator updates of every model, by data set."""
EVALUATED_ON = {"celeba": "select"}
"""Our split that the paper's real images are in: CelebA's validation part, else test images."""
IMAGES = {"select": "the validation part", "report": "the test images"}
ARCHITECTURE, WIDTH = "infogan", 64
SAMPLES, SEEDS, CONFIGS = 10_000, 50, 100
"""Generated images behind an FID; seeds behind a mean; configurations behind the best one."""


class Row(NamedTuple):
    """One arm beside the paper's model that it corresponds to.

    Attributes:
        paper: FID over the paper's seeds, without the runs that it calls outliers.
        ours: The arm's best configuration over its seeds.
        differs: In what the two numbers are not the same quantity.
        paper_rank: Among the models of this data set that stand here, 1 the best.
        our_rank: NaN where none of the arm's runs has a score.
    """

    dataset: str
    model: str
    arm: str
    paper: Printed
    ours: BestConfig
    differs: list[str]
    paper_rank: float = math.nan
    our_rank: float = math.nan


class Printed(NamedTuple):
    """A cell of the paper's Table 2, and where it was read."""

    mean: float
    sd: float
    source: str


@functools.cache
def printed() -> dict[tuple[str, str], Printed]:
    """Return the paper's Table 2 by model and data set."""
    with (files("analysis") / "agce_table2.csv").open(encoding="utf-8") as file:
        return {
            (row["model"], row["dataset"]): Printed(
                float(row["fid_mean"]),
                float(row["fid_sd"]),
                "; ".join(text for text in (row["source"], row["note"]) if text),
            )
            for row in csv.DictReader(file)
        }


def model_of(arm: Mapping[str, Any]) -> str | None:
    """Return the paper's model that an arm is, None if it is none or its loss is swept."""
    if "loss" in (arm.get("space") or {}):
        return None
    loss = (arm.get("loss") or {}).get("name", "")
    return MODELS.get((loss, "+".join(sorted(arm.get("regularizers") or {}))))


def rows(study: Study) -> list[Row]:
    """Return every arm that corresponds to a model and a data set of the paper, ranked."""
    best = {found.arm: found for found in best_configs(study)}
    found = [
        row
        for arm in study.contenders
        if arm in best and (row := _row(study, arm, best[arm])) is not None
    ]
    datasets = list(dict.fromkeys(row.dataset for row in found))
    return [
        row
        for dataset in datasets
        for row in _ranked([r for r in found if r.dataset == dataset], study.sign)
    ]


def _row(study: Study, arm: str, best: BestConfig) -> Row | None:
    # A component without options was once, and may be, written as its bare name.
    settings = {
        key: {"name": value} if isinstance(value, str) else value
        for key, value in (study.settings["arms"][arm] or {}).items()
    }
    model = model_of(settings)
    name = (settings.get("dataset") or {}).get("name", "")
    if model is None or name not in DATASETS:
        return None
    told = printed()[model, DATASETS[name]]
    return Row(
        dataset=DATASETS[name],
        model=model,
        arm=arm,
        paper=told,
        ours=best,
        differs=[
            *_measured(study, DATASETS[name]),
            *_trained(settings, model, name),
            *_counted(study, best),
        ],
    )


def _ranked(found: Sequence[Row], sign: int) -> list[Row]:
    ours = np.array([_score(row, sign) for row in found])
    theirs = [row.paper.mean for row in found]
    ranks = zip(stats.rankdata(theirs, "min"), stats.rankdata(ours, "min"), ours, strict=True)
    return [
        row._replace(paper_rank=float(p), our_rank=float(o) if math.isfinite(score) else math.nan)
        for row, (p, o, score) in zip(found, ranks, strict=True)
    ]


def _score(row: Row, sign: int) -> float:
    """Return our mean, lower is better; an arm without a score is behind all others."""
    return sign * row.ours.mean.value if row.ours.ok else math.inf


def _measured(study: Study, dataset: str) -> list[str]:
    """Return in what the score differs from an FID of 10,000 samples on the paper's images."""
    how = study.protocol.get(study.primary, {})
    found = []
    if not study.primary.startswith("fid_"):
        network = (how.get("features") or {}).get("name")
        on = f" on {network}" if network else ""
        found.append(f"score: {study.primary}{on} is no Inception FID")
    n = how.get("n_generated")
    if n != SAMPLES:
        found.append(f"n: {f'{n:,}' if n else 'unknown'}, paper {SAMPLES:,}")
    split, theirs = how.get("split", "unknown"), EVALUATED_ON.get(dataset, "report")
    return found if split == theirs else [*found, f"images: {split} split, paper {IMAGES[theirs]}"]


def _trained(settings: Mapping[str, Any], model: str, dataset: str) -> list[str]:
    """Return in what data, networks, losses and budget differ."""
    found = [f"data: {PARTS[dataset]}"] if dataset in PARTS else []
    if limit := settings["dataset"].get("limit"):
        found.append(f"data: {limit:,} images only")
    size = settings["dataset"].get("size", 64)
    if dataset == "celeba" and size != 64:
        found.append(f"data: {size}x{size}, paper 64x64")
    found += _networks(settings.get("architecture") or {})
    parts = [settings.get("loss") or {}, *(settings.get("regularizers") or {}).values()]
    if model in CODE_DIFFERS and not any((part or {}).get("variant") for part in parts):
        found.append("loss: as printed, the paper's code differs")
    if extra := sorted(settings.get("stabilizers") or {}):
        found.append(f"stabilizers: {', '.join(extra)}, paper none")
    updates = (settings.get("budget") or {}).get("discriminator_updates")
    wanted = UPDATES[DATASETS[dataset]]
    if updates != wanted:
        found.append(
            f"budget: {f'{updates:,}' if updates else 'unknown'} updates, paper {wanted:,}"
        )
    return found


def _networks(settings: Mapping[str, Any]) -> list[str]:
    name, width = settings.get("name", "unknown"), settings.get("width")
    if name != ARCHITECTURE:
        return [f"architecture: {name}, paper {ARCHITECTURE} of width {WIDTH}"]
    found = [f"width: {width or 'unknown'}, paper {WIDTH}"] if width != WIDTH else []
    return found + ["architecture: with spectral norm"] * bool(settings.get("spectral_norm"))


def _counted(study: Study, best: BestConfig) -> list[str]:
    """Return in what the numbers of seeds and configurations differ."""
    seeds = best.ok + best.failed
    found = [f"seeds: {seeds}, paper {SEEDS}"] if seeds != SEEDS else []
    tried = len(study.unit_scores(best.arm))
    if study.unit != "seed" and tried != CONFIGS:
        found.append(f"chosen from: {tried}, paper {CONFIGS}")
    return found


class Agreement(NamedTuple):
    """How far two orders of the same models agree."""

    tau: float
    """Kendall's, 1 for the same order, -1 for the reverse; NaN where one of them is none."""
    p: float
    """Of such a tau or a more extreme one if the orders had nothing to do with each other."""
    n: int


def agreement(found: Sequence[Row], sign: int = 1) -> Agreement:
    """Return Kendall's tau-b between the paper's order and ours, of rows of one data set."""
    n = len(found)
    if n < 2:
        return Agreement(math.nan, math.nan, n)
    ours = stats.rankdata([_score(row, sign) for row in found])
    theirs = np.array([row.paper.mean for row in found])
    tau = float(stats.kendalltau(theirs, ours).statistic)
    return Agreement(tau, math.nan if math.isnan(tau) else _order_p(theirs, ours), n)


def _order_p(theirs: np.ndarray, ours: np.ndarray) -> float:
    """Return the two-sided p of Kendall's tau by the orders that our ranks could have had.

    Scipy's own is exact without ties, and with them, as where two arms failed throughout, a
    normal approximation, which 3 to 8 models are too few for.
    """
    if len(np.unique(theirs)) == len(theirs) and len(np.unique(ours)) == len(ours):
        return float(stats.kendalltau(theirs, ours).pvalue)
    signs = np.sign(theirs[:, None] - theirs)

    def concordance(order: np.ndarray, axis: int = -1) -> np.ndarray:
        del axis
        pairs = np.sign(order[..., :, None] - order[..., None, :])
        return np.asarray((signs * pairs).sum(axis=(-2, -1)))

    test = stats.permutation_test(
        (ours,), concordance, permutation_type="pairings", vectorized=True,
        n_resamples=9_999, batch=1000, rng=np.random.default_rng(0),
    )  # fmt: skip
    return float(test.pvalue)


def agreement_sentence(dataset: str, found: Sequence[Row], sign: int) -> str:
    """Return in words how the order on one data set agrees with the paper's."""
    tau, p, n = agreement(found, sign)
    if n < 2:
        return f"On {dataset} one model has a counterpart, so there is no order to compare."
    if math.isnan(tau):
        return (
            f"On {dataset} the {n} models are all equal in one of the two, so there is no order."
        )
    # 2 / n! is the exact p of the same order throughout.
    few = (
        " With so few models not even the same order throughout would be beyond chance."
        if 2 / math.factorial(n) > 0.05
        else ""
    )
    return (
        f"On {dataset}: Kendall's tau between the paper's order and ours is {tau:.2f} over n = "
        f"{n} models (1: the same order, 0: none in common; p = {p:.2g} if they had nothing in "
        f"common).{few}"
    )


def shared(found: Sequence[Row]) -> list[str]:
    """Return in what all rows differ from the paper alike; nothing of a single row."""
    if len(found) < 2:
        return []
    return [text for text in found[0].differs if all(text in r.differs for r in found[1:])]


def flags(row: Row, same: Sequence[str]) -> str:
    """Return in what a row differs: what is told of all rows by its first word alone."""
    words = ", ".join(text.partition(":")[0] for text in row.differs if text in same)
    return "; ".join([words] * bool(words) + [text for text in row.differs if text not in same])


def _table(found: Sequence[Row]) -> Table:
    same = shared(found)
    data = [
        {"dataset": r.dataset, "model": r.model, "arm": r.arm, "paper_mean": r.paper.mean,
         "paper_sd": r.paper.sd, "ours_mean": r.ours.mean.value, "ours_sd": r.ours.sd,
         "seeds": r.ours.ok + r.ours.failed, "failed": r.ours.failed,
         "paper_rank": r.paper_rank, "our_rank": r.our_rank,
         "differs": "; ".join(r.differs), "source": r.paper.source}
        for r in found
    ]  # fmt: skip
    shown = [
        {"data set": r.dataset, "arm": r.arm, "paper's model": r.model,
         "rank: paper": f"{r.paper_rank:g}", "rank: ours": number(r.our_rank),
         "paper: FID ± sd": f"{r.paper.mean:g} ± {r.paper.sd:g}", "ours ± sd": _ours(r.ours),
         "not the same": flags(r, same), "read from": r.paper.source}
        for r in found
    ]  # fmt: skip
    reading = (
        f"Paper: Table 2 of Lucic et al. 2018, FID of each model's best configuration over "
        f"{SEEDS} seeds, outliers left out, chosen and told on the same images. Ours: the arm's "
        f"best configuration over the seeds that did not fail. The numbers are not the same "
        f'quantity in what the column "not the same" names; what compares is the order within a '
        f"data set. "
        f"Read from: the texts that the paper's numbers were read in, or unverified."
    )
    return Table("paper", "Paper and ours", reading, pd.DataFrame(data), pd.DataFrame(shown))


def _ours(best: BestConfig) -> str:
    lost = f", {best.failed} failed" if best.failed else ""
    if not best.ok:
        return f"{NONE} (all failed)"
    spread = "" if math.isnan(best.sd) else f" ± {best.sd:.2g}"
    return f"{number(best.mean.value)}{spread} (n = {best.ok}{lost})"


def section(study: Study) -> Section | None:
    """Return the paper's numbers beside ours, None where no arm and data set corresponds."""
    found = rows(study)
    if not found:
        return None
    parts: list[Part] = [_table(found)]
    if same := shared(found):
        parts.append(f"Not the same in any row. {'; '.join(same)}.")
    for dataset in dict.fromkeys(row.dataset for row in found):
        mine = [row for row in found if row.dataset == dataset]
        parts.append(agreement_sentence(dataset, mine, study.sign))
    return Section("paper", 'Beside "Are GANs Created Equal?"', parts)
