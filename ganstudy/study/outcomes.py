"""Decide which trials count, which of them failed, and which configuration of an arm is best.

The driver, `replicate`, the adaptive search, `why` and the report all call these functions, so
that they agree; the search takes a trial that ended collapsed or copying for failed besides.
Scores are oriented here: lower is better, +inf for a failure. The module imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ganstudy.records import TIME_LIMIT, TrialRecord, TrialStatus

DEFAULT_CONFIG = "default"
"""Name of the config that leaves an arm at its own settings: no draw from the search space."""
FAILURES = frozenset({TrialStatus.DIVERGED, TrialStatus.STOPPED})
"""Ways of ending that are failures of the arm."""
OUTCOMES = frozenset({TrialStatus.COMPLETED, *FAILURES})


@dataclass(frozen=True)
class ScoreRule:
    """How a trial becomes one number, lower is better, +inf for a failure.

    Attributes:
        score: Stored name of the score.
        sign: 1 where lower is better, -1 where higher is.
        checkpoint: "best" or "last".
        keep_stopped: Whether a trial that an event stopped counts by its checkpoint so far.
        failures: Kinds of event that make a trial a failure if they last to its end.
    """

    score: str
    sign: int = 1
    checkpoint: str = "best"
    keep_stopped: bool = False
    failures: tuple[str, ...] = ()


@dataclass(frozen=True)
class OutcomeRule:
    """How a study counts and scores its trials.

    Attributes:
        score: How a trial is scored.
        pruner: Name of the rule that stops trials within their arm, None without one.
        repeated: Arm -> its repeated configs, best first as chosen beforehand; empty in a study
            that draws its configs.
    """

    score: ScoreRule
    pruner: str | None
    repeated: Mapping[str, Sequence[str]]

    @classmethod
    def from_settings(
        cls, settings: Mapping[str, Any], primary: str, *, minimize: bool
    ) -> OutcomeRule:
        """Read the rule from a resolved study.

        Args:
            settings: What `study.yaml` in the study's folder holds.
            primary: Stored name of the primary score.
            minimize: Whether lower values of it are better.
        """
        comparison = settings.get("judgement") or {}
        score = ScoreRule(
            primary,
            1 if minimize else -1,
            comparison.get("checkpoint", "best"),
            failures=tuple(comparison.get("failures") or ()),
        )
        configs = (settings.get("replicate") or {}).get("configs") or {}
        pruner = next(iter(settings.get("stopping") or {}), None)
        return cls(score, pruner, {arm: list(chosen) for arm, chosen in configs.items()})

    def repeated_by(self, arm: str) -> Sequence[str] | None:
        """Return the configs that the study repeats in an arm, None where it draws configs."""
        return self.repeated.get(arm, ()) if self.repeated else None

    def score_outcomes(self, trials: pd.DataFrame, events: pd.DataFrame) -> pd.DataFrame:
        """Return the trials that are outcomes of their arms, with the column `score`."""
        outcomes = select_outcomes(trials, self.pruner).copy()
        lasting = find_lasting(events, self.score.failures)
        outcomes["score"] = score_trials(outcomes, self.score, lasting)
        return outcomes


def describe_failure(kinds: Collection[str]) -> str:
    """Return when a trial counts as failed, as an ending of "a trial failed if".

    Args:
        kinds: Kinds of event that make a trial a failure if they last to its end.
    """
    text = "it diverged, an event stopped it, or it has no finite score"
    if kinds:
        text += f"; so did one that ended while an event of these kinds lasted: {', '.join(kinds)}"
    return text


def is_pruned(trials: pd.DataFrame, pruner: str | None) -> pd.Series[bool]:
    """Mark the trials that the study's pruner or the clock stopped."""
    reasons = trials["reason"].isin([pruner, TIME_LIMIT])
    return (trials["status"] == TrialStatus.STOPPED) & reasons


def select_outcomes(trials: pd.DataFrame, pruner: str | None) -> pd.DataFrame:
    """Return the trials whose end is an outcome of their arm.

    A trial that is not finished, that was lost to an error, or that a pruner or the clock stopped
    is no outcome.
    """
    ended = trials["status"].isin(list(OUTCOMES))
    return trials[ended & ~is_pruned(trials, pruner)]


def find_lasting(events: pd.DataFrame, kinds: Collection[str]) -> pd.Index[Any]:
    """Return the trials that ended while an event of these kinds lasted."""
    if not kinds:
        return pd.Index([], dtype=object)
    lasting = events["kind"].isin(list(kinds)) & events["ended"].isna()
    return pd.Index(events["trial_id"][lasting].unique(), dtype=object)


def score_trials(
    trials: pd.DataFrame, rule: ScoreRule, lasting: pd.Index[Any]
) -> pd.Series[float]:
    """Score each trial: lower is better, +inf for a failure.

    A trial failed if it diverged, if it has no finite score, or if an event of the rule's
    `failures` lasted to its end. So did one that an event stopped, or an arm would gain by
    collapsing early, unless the rule keeps it.

    Args:
        trials: Outcomes, with `<checkpoint>.<score>` columns.
        rule: How they are scored.
        lasting: Trials that ended while such an event lasted, as `find_lasting` returns them.
    """
    column = f"{rule.checkpoint}.{rule.score}"
    if column not in trials:
        return pd.Series(math.inf, index=trials.index)
    values = rule.sign * trials[column].astype(float)
    failing = {TrialStatus.DIVERGED} if rule.keep_stopped else FAILURES
    failed = trials["status"].isin(list(failing)) | ~np.isfinite(values)
    if len(lasting):
        ids = pd.Index(trials["trial_id"].to_numpy(dtype=object))
        failed |= lasting.get_indexer(ids) >= 0
    return values.mask(failed, math.inf)


def score_record(record: TrialRecord, status: TrialStatus, rule: ScoreRule) -> float:
    """Score one trial by what it recorded, just as `score_trials` scores its row.

    Args:
        record: Its points and events.
        status: How the trial ended, which a pruner may say instead of the record.
        rule: How it is scored.
    """
    result = record.result
    at = result.best_at if rule.checkpoint == "best" else result.discriminator_updates
    value = record.values_at(at).get(rule.score, math.nan)
    row = {"trial_id": "", "status": status, f"{rule.checkpoint}.{rule.score}": value}
    events = pd.DataFrame(
        [("", event.kind, event.ended) for event in record.events],
        columns=["trial_id", "kind", "ended"],
    )
    lasting = find_lasting(events, rule.failures)
    return float(score_trials(pd.DataFrame([row]), rule, lasting).iloc[0])


def select_candidates(
    outcomes: pd.DataFrame, repeated: Sequence[str] | None = None
) -> pd.DataFrame:
    """Return the outcomes of one arm whose configs compete to be its best.

    The defaults of the arm are no draw from its search space and do not compete, unless the study
    repeats them. A run that was made twice counts once.

    Args:
        outcomes: Of one arm.
        repeated: The configs that the study repeats in the arm; None where it draws them.
    """
    configs = outcomes["config_id"]
    chosen = configs != DEFAULT_CONFIG if repeated is None else configs.isin(list(repeated))
    candidates = outcomes[chosen]
    # A run of another system has no hash, and is no other run's copy.
    copies = candidates["result_hash"].duplicated() & candidates["result_hash"].notna()
    return candidates[~copies]


def select_counted(outcomes: pd.DataFrame, repeated: Sequence[str] | None = None) -> pd.DataFrame:
    """Return the outcomes of one arm that its scores are of.

    Those of all candidates; where configs are repeated, those of the one that was chosen
    beforehand, whatever the others do: its seeds chose nothing.
    """
    return select_candidates(outcomes, None if repeated is None else repeated[:1])


def score_configs(configs: pd.Series[Any], scores: pd.Series[float]) -> pd.Series[float]:
    """Return config -> median score over its seeds, ordered by config.

    The ordinary median: of an even number of seeds the mean of the middle two, so that a config
    of which half the seeds failed has failed.

    Args:
        configs: The config of each trial, or what else makes trials one unit.
        scores: The score of each trial, in the same order.
    """
    series = pd.Series(scores.to_numpy(), index=pd.Index(configs), dtype=float)
    return series.groupby(level=0).median().sort_index()


def rank_configs(trials: pd.DataFrame) -> pd.Series[float]:
    """Return config -> median score of those that did not fail, best first.

    Of equal scores the config whose id comes first ranks first.

    Args:
        trials: Candidates of one arm, with `config_id` and `score`.
    """
    medians = score_configs(trials["config_id"], trials["score"])
    return medians[np.isfinite(medians)].sort_values(kind="stable")


def select_median_trial(trials: pd.DataFrame) -> Any:
    """Return the index label of the trial at the median of the arm's best config.

    Of an even number of seeds it is the better of the middle two; of equal scores the smaller
    seed comes first. None where every config failed.

    Args:
        trials: Counted trials of one arm, with `config_id`, `seed` and `score`.
    """
    ranked = rank_configs(trials)
    if ranked.empty:
        return None
    seeds = trials[trials["config_id"] == ranked.index[0]].sort_values(["score", "seed"])
    return seeds.index[(len(seeds) - 1) // 2]
