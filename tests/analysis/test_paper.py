"""The paper's numbers beside ours."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
from scipy import stats

from analysis import paper
from analysis.page import Table
from analysis.tables import Study
from ganstudy.study.recipes import RECIPES
from tests.analysis.conftest import SCORE
from tests.analysis.seeded import replicate, study_of, trials

AGCE = {name.partition("/")[2]: recipe for name, recipe in RECIPES.items() if name[:5] == "agce/"}


def plain(model: str, dataset: str = "mnist5k", **more) -> dict:
    """Return an arm of AGCE as a resolved study holds it."""
    arm = dict(AGCE[model].settings) | {"dataset": {"name": dataset}, "space": {}}
    loss = arm["loss"]
    return arm | {"loss": {"name": loss} if isinstance(loss, str) else loss} | more


def beside(means: dict[str, float], seeds: int = 3, sign: int = 1, **arms) -> Study:
    """Return a replicate of one config an arm, its seeds about the mean; inf where all fail."""
    spread = np.linspace(-0.1, 0.1, seeds)
    study = replicate({arm: trials(arm, (m + spread)[None]) for arm, m in means.items()})
    known = {arm: arms.get(arm) or plain(arm) for arm in means}
    return dataclasses.replace(study, settings=study.settings | {"arms": known}, sign=sign)


def test_every_model_of_the_recipes_is_one_of_the_papers():
    assert {paper.model_of(plain(model)) for model in AGCE} == set(AGCE)
    models, datasets = (set(names) for names in zip(*paper.printed(), strict=True))
    assert models == set(AGCE)
    assert datasets == set(paper.DATASETS.values()) == set(paper.UPDATES)
    assert len(paper.printed()) == 32


def test_numbers_and_their_sources_are_those_of_the_table():
    told = paper.printed()
    assert told["wgan", "mnist"][:2] == (6.7, 0.4)
    assert told["least_squares", "cifar10"].source.endswith("PA-GAN prints the sd as 0.9")
    assert all(("unverified" in cell.source) == (model == "vae")
               for (model, _), cell in told.items())  # fmt: skip


@pytest.mark.parametrize(
    "arm",
    [
        {"loss": {"name": "hinge"}},
        {"loss": {"name": "wasserstein"}, "regularizers": {}},
        {"loss": {"name": "non_saturating"}, "regularizers": {"r1": {}, "dragan": {}}},
        {"loss": {"name": "minimax"}, "space": {"loss": {"choice": ["minimax", "hinge"]}}},
        {},
    ],
)
def test_other_arms_correspond_to_none(arm):
    assert paper.model_of(arm) is None


def test_the_order_is_compared_and_not_the_numbers():
    # The paper on MNIST: wgan 6.7, non_saturating 6.8, dragan 7.6, wgan_gp 20.3.
    means = {"wgan": 90.0, "dragan": 80.0, "non_saturating": 95.0, "wgan_gp": 99.0}
    found = paper.rows(beside(means))
    ranks = {row.arm: (row.paper_rank, row.our_rank) for row in found}
    assert ranks == {"wgan": (1, 2), "non_saturating": (2, 3), "dragan": (3, 1), "wgan_gp": (4, 4)}
    tau, p, n = paper.agreement(found)
    # Two of the six pairs stand the other way round.
    assert (tau, n) == (pytest.approx((4 - 2) / 6), 4)
    others = [stats.kendalltau([1, 2, 3, 4], order)[0] for order in
              itertools.permutations([1, 2, 3, 4])]  # fmt: skip
    assert p == pytest.approx(np.mean(np.abs(others) >= tau - 1e-9))


def test_higher_is_better_turns_our_order_round():
    means = {"wgan": 0.9, "dragan": 0.5, "wgan_gp": 0.2}
    study = beside(means, sign=-1)
    assert paper.agreement(paper.rows(study), -1).tau == 1.0
    assert [row.our_rank for row in paper.rows(study)] == [1, 2, 3]


def test_an_arm_that_always_failed_is_behind_all_others():
    study = beside({"wgan": math.inf, "dragan": 5.0, "wgan_gp": 6.0})
    found = paper.rows(study)
    assert math.isnan(found[0].our_rank)
    assert paper.agreement(found).tau == pytest.approx((1 - 2) / 3)
    table, _, sentence = paper.section(study).parts
    assert table.cells.loc[0, "ours ± sd"] == "– (all failed)"
    assert "not even the same order" in sentence


def test_every_row_says_in_what_it_differs():
    small = plain("wgan") | {"architecture": {"name": "infogan", "width": 16}}
    small["budget"] = {"discriminator_updates": 3000}
    (row,) = paper.rows(beside({"wgan": 5.0}, wgan=small))
    assert row.differs[-3:] == ["width: 16, paper 64", "budget: 3,000 updates, paper 15,625",
                                "seeds: 3, paper 50"]  # fmt: skip
    text = "; ".join(row.differs)
    assert "is no Inception FID" in text
    assert "5,000 of the 70,000 digits" in text


def test_what_differs_everywhere_is_told_once_and_named_in_each_row():
    means = {"wgan": 5.0, "dragan": 6.0}
    table, same, _ = paper.section(beside(means)).parts
    assert "data: 5,000 of the 70,000 digits" in same
    cells = dict(zip(table.cells["arm"], table.cells["not the same"], strict=True))
    assert cells["wgan"] == "score, n, images, data, seeds"
    assert cells["dragan"].endswith("seeds; loss: as printed, the paper's code differs")
    assert "5,000 of the 70,000 digits" in table.data.loc[0, "differs"]


def test_the_papers_own_study_differs_in_nothing():
    arm = plain("wgan", "celeba")
    arm["budget"] = {"discriminator_updates": 101_250}
    study = beside({"wgan": 5.0}, seeds=50, wgan=arm)
    protocol = {"fid_10k": {"features": {"name": "inception"}, "n_generated": 10_000,
                            "split": "select"}}  # fmt: skip
    renamed = study.results.trials.rename(columns=lambda name: name.replace(SCORE, "fid_10k"))
    study.results.trials = renamed
    study = dataclasses.replace(study, primary="fid_10k", protocol=protocol)
    (row,) = paper.rows(study)
    assert row.differs == []
    assert (row.paper.mean, row.ours.ok) == (41.3, 50)


def test_losses_that_the_papers_code_computes_otherwise_are_flagged():
    (row,) = paper.rows(beside({"least_squares": 5.0}))
    assert "loss: as printed, the paper's code differs" in row.differs
    code = plain("least_squares") | {"loss": {"name": "least_squares", "variant": "agce_code"}}
    (row,) = paper.rows(beside({"least_squares": 5.0}, least_squares=code))
    assert not any(text.startswith("loss") for text in row.differs)


def test_data_sets_are_ranked_apart_and_controls_not_at_all():
    arms = {"a": plain("wgan", "mnist"), "b": plain("wgan_gp", "celeba"),
            "c": plain("dragan", "celeba"), "d": plain("wgan", "mnist")}  # fmt: skip
    study = beside({"a": 9.0, "b": 8.0, "c": 7.0, "d": 1.0}, **arms)
    controls = {"same": {"arm": "a", "again": "d"}, "broken": None}
    study = dataclasses.replace(study, settings=study.settings | {"controls": controls})
    found = paper.rows(study)
    assert [(r.dataset, r.arm, r.our_rank) for r in found] == [
        ("mnist", "a", 1), ("celeba", "b", 2), ("celeba", "c", 1),
    ]  # fmt: skip
    table, _, first, second = paper.section(study).parts
    assert isinstance(table, Table)
    assert "no order to compare" in first
    assert "celeba" in second


def test_a_sweep_says_of_how_many_configs_the_best_is():
    study = study_of({"wgan": trials("wgan", np.array([[3.0], [2.0], [4.0]]))})
    study = dataclasses.replace(study, settings=study.settings | {"arms": {"wgan": plain("wgan")}})
    (row,) = paper.rows(study)
    assert row.ours.mean.value == 2.0
    assert "chosen from: 3, paper 100" in row.differs


def test_nothing_stands_where_nothing_corresponds():
    assert paper.section(beside({"wgan": 5.0}, wgan=plain("wgan", "digits"))) is None
    assert paper.section(beside({"wgan": 5.0}, wgan={"space": {}})) is None
    assert paper.section(study_of({"a": trials("a", np.array([[2.0]]))})) is None


def test_equal_scores_have_no_order():
    study = beside({"wgan": 5.0, "dragan": 5.0})
    assert "there is no order" in paper.section(study).parts[-1]


def test_a_data_set_written_as_its_bare_name_is_the_same():
    study = beside({"wgan": 3.0, "minimax": 4.0})
    arms = study.settings["arms"]
    short = {name: arm | {"dataset": arm["dataset"]["name"]} for name, arm in arms.items()}
    bare = dataclasses.replace(study, settings=study.settings | {"arms": short})
    assert repr(paper.rows(bare)) == repr(paper.rows(study))
