"""Can a study's primary score rank its arms? What is known against it, as findings with advice.

The facts come from `protocol.json`, the scores of the arms' best generators on the report split
and `ganstudy sanity`. `ganstudy check`, the console and the report show the same findings. No
torch, so that the analysis can import it. docs/measures.md explains each rule.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

Z = 1.96
"""Standard errors beyond which two scores differ: two-sided, 5 %."""
LEAST_ODDS_RATIO = 10
"""Odds of a right answer over the odds of a constant answer, below which features are weak.

The ratio, and not the accuracy, since 62 % of 1,000 classes is much and 62 % of two is little.
`small_cnn` reaches 70 to 460 on the packaged data; docs/measures.md has the measurement.
"""
FEWEST_UPDATES = 15
"""Updates of the classifier below which no data set of ours gave `LEAST_ODDS_RATIO`."""
LEAST_RATIO = 2
"""Ratio of two scores from which on an order of two arms counts as clear, noise aside.

Within a factor of two, networks order generators no more alike than chance even on the healthy
quickstart: Spearman's rho is 0.00 and -0.48 over its better half (docs/measures.md).
"""
FEWEST_GENERATORS = 8
"""Generators below which a rank correlation of two networks is no evidence."""
CLEAR = 0.9
"""Spearman's rho from which on a score sees what was done to real images."""


class Measured(NamedTuple):
    """A score with its standard error, NaN where it has none."""

    value: float
    standard_error: float = math.nan


class Finding(NamedTuple):
    """One reason to doubt the score.

    Attributes:
        key: Name of the rule.
        evidence: What is known, with its numbers.
        advice: What to do about it.
    """

    key: str
    evidence: str
    advice: str


@dataclass(frozen=True)
class ScoreFacts:
    """What is known of a study's primary score, as far as the study has got.

    Attributes:
        name: Stored name of the score.
        minimize: Whether lower is better.
        network: Name of the feature network.
        held_out: What the network's classifier reaches on images that it was not trained on
            (`features_facts.held_out` of protocol.json); empty where there is none.
        classes: Classes of the labels that the network trains on, None where it trains on none.
        updates: Updates that a classifier will be trained for, None where it was trained.
        n: Images that each side of a score holds.
        dimension: Features of an image.
        n_needed: Images that the metric needs at this dimension, None where any number will do.
        floor: The score of real images.
        arms: Arm -> score of its best generator.
        judge: Stored name of the score that chose nothing.
        judge_minimize: Whether lower is better there.
        judged: Arm -> that score of the same generator.
        sight: Way of spoiling real images -> mean rho over repeats; NaN of a constant score.
        agreement: Score on other features -> its rho with this score over generators, and their n.
    """

    name: str
    minimize: bool = True
    network: str = ""
    held_out: Mapping[str, float] = field(default_factory=dict)
    classes: int | None = None
    updates: int | None = None
    n: int = 0
    dimension: int = 0
    n_needed: int | None = None
    floor: Measured = Measured(math.nan)
    arms: Mapping[str, Measured] = field(default_factory=dict)
    judge: str = ""
    judge_minimize: bool = True
    judged: Mapping[str, Measured] = field(default_factory=dict)
    sight: Mapping[str, float] = field(default_factory=dict)
    agreement: Mapping[str, tuple[float, int]] = field(default_factory=dict)


def recorded_facts(protocol: Mapping[str, Any]) -> ScoreFacts:
    """Read the facts of protocol.json: what is known once the feature network is trained."""
    name = str(protocol.get("primary", ""))
    how = protocol.get("scores", {}).get(name, {})
    held_out = how.get("features_facts", {}).get("held_out", {})
    return ScoreFacts(
        name=name,
        minimize=bool(protocol.get("minimize", True)),
        network=str(how.get("features", {}).get("name", "")),
        held_out=held_out,
        classes=held_out.get("classes"),
        n=int(how.get("n_floor") or how.get("n_real") or 0),
        dimension=int(how.get("dimension") or 0),
        n_needed=how.get("n_needed"),
        floor=Measured(_number(how.get("floor")), _number(how.get("floor_standard_error"))),
    )


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def odds_ratio(accuracy: float, chance: float) -> float:
    """Return the odds of `accuracy` over those of `chance`; inf where nothing is wrong."""
    if accuracy >= 1:
        return math.inf
    return accuracy / (1 - accuracy) * (1 - chance) / chance


def one_class(facts: ScoreFacts) -> Iterator[Finding]:
    """Yield a finding where the feature network is a classifier of one class."""
    if facts.classes == 1:
        yield Finding(
            "one_class",
            f"{facts.network} learns its features from the labels, and all images have the same "
            f"label, so that it learns nothing",
            OTHER_FEATURES,
        )


OTHER_FEATURES = (
    "score by kernel_distance on features that need no labels "
    "(measure: {features: lite0, metrics: [kernel_distance]}, or random_conv far from photographs)"
)
MORE_TRAINING = (
    "give the classifier more images, or more passes over them "
    "(measure: {features: {name: small_cnn, epochs: 50}})"
)


def weak_features(facts: ScoreFacts) -> Iterator[Finding]:
    """Yield a finding where the classifier behind the features tells classes badly.

    That is: the lower end of its accuracy's interval is not above chance, or its odds of a right
    answer are below `LEAST_ODDS_RATIO` times those of a constant one.
    """
    held = facts.held_out
    if not held or facts.classes == 1:
        return
    by_chance = held["low"] <= held["chance"]
    ratio = odds_ratio(held["accuracy"], held["chance"])
    if not by_chance and ratio >= LEAST_ODDS_RATIO:
        return
    so = (
        "no better than chance"
        if by_chance
        else f"odds {ratio:.1f} times those of chance, where features that can be relied on have "
        f"{LEAST_ODDS_RATIO} and more"
    )
    yield Finding(
        "weak_features",
        f"its features come from {facts.network}, a classifier that is right on "
        f"{held['accuracy']:.0%} [{held['low']:.0%}, {held['high']:.0%}] of {held['n']} held-out "
        f"images of {held['classes']} classes, where a constant answer is right on "
        f"{held['chance']:.0%}: {so}",
        f"{MORE_TRAINING}; or {OTHER_FEATURES}",
    )


def little_training(facts: ScoreFacts) -> Iterator[Finding]:
    """Yield a finding where a classifier will be trained on too few images to learn."""
    if facts.updates is None or facts.updates >= FEWEST_UPDATES or facts.classes == 1:
        return
    yield Finding(
        "little_training",
        f"{facts.network} will train for {facts.updates} updates on the images there are; with "
        f"fewer than {FEWEST_UPDATES} it learned the classes of no data set it was tried on",
        f"{MORE_TRAINING}; or {OTHER_FEATURES}",
    )


def few_samples(facts: ScoreFacts) -> Iterator[Finding]:
    """Yield a finding where the metric needs more images at this dimension."""
    if facts.n_needed is None or facts.n >= facts.n_needed:
        return
    yield Finding(
        "few_samples",
        f"it compares {facts.n} images of {facts.dimension} features, and its metric needs "
        f"{facts.n_needed}: features that shrink can score better than those of real images",
        "let kernel_distance come first in measure.metrics, or use more images",
    )


def at_the_floor(facts: ScoreFacts) -> Iterator[Finding]:
    """Yield a finding where the best arm scores as well as real images, within noise.

    Noise is `Z` standard errors of the difference; where a score has no standard error, the best
    arm must be better than real images.
    """
    sign = 1 if facts.minimize else -1
    finite = {arm: s for arm, s in facts.arms.items() if math.isfinite(s.value)}
    if not finite or not math.isfinite(facts.floor.value):
        return
    arm = min(finite, key=lambda a: sign * finite[a].value)
    best, gap = finite[arm], sign * (finite[arm].value - facts.floor.value)
    if gap >= 0 and gap >= _noise(best, facts.floor):
        return
    yield Finding(
        "at_the_floor",
        f"the best generator of {arm} scores {_shown(best)}, real images {_shown(facts.floor)}: "
        f"the score does not tell the two apart, so that it cannot rank arms which are as good, "
        f"or it does not see what is wrong with them",
        "compare the samples with real images by eye, raise measure.samples, and score on other "
        "features",
    )


def _noise(one: Measured, other: Measured) -> float:
    """Return what two scores may differ by through their samples; unknown errors count as 0."""
    errors = (0 if math.isnan(s.standard_error) else s.standard_error for s in (one, other))
    return Z * math.hypot(*errors)


def _shown(score: Measured) -> str:
    error = score.standard_error
    return f"{score.value:.3g}" + ("" if math.isnan(error) else f" ± {error:.2g}")


def judge_disagrees(facts: ScoreFacts) -> Iterator[Finding]:
    """Yield a finding where the score that chose nothing turns most clear orders round.

    An order of two arms is clear where their scores differ by more than `Z` standard errors and
    by a factor of at least `LEAST_RATIO`, in both scores. There are too few arms for a rank
    correlation.
    """
    turned, agreed = [], 0
    for pair in itertools.combinations([arm for arm in facts.arms if arm in facts.judged], 2):
        own = _clear_order(pair, facts.arms, facts.minimize)
        other = _clear_order(pair, facts.judged, facts.judge_minimize)
        if own is None or other is None:
            continue
        if own == other:
            agreed += 1
        else:
            turned.append(own)
    if len(turned) <= agreed:
        return
    pairs = "; ".join(
        f"it ranks {better} ({_shown(facts.arms[better])}) above {worse} "
        f"({_shown(facts.arms[worse])}), which {facts.judge} ranks the other way round "
        f"({_shown(facts.judged[better])} against {_shown(facts.judged[worse])})"
        for better, worse in turned[:SHOWN]
    )
    more = f"; and {len(turned) - SHOWN} more pairs" if len(turned) > SHOWN else ""
    yield Finding(
        "judge_disagrees",
        f"{pairs}{more} ({len(turned)} of {len(turned) + agreed} clear orders are turned round)",
        "look at the samples of these arms before you believe either order; `ganstudy sanity DIR` "
        "measures what each score sees",
    )


SHOWN = 3
"""Pairs of arms that a finding names."""


def _clear_order(
    pair: tuple[str, str], scores: Mapping[str, Measured], minimize: bool
) -> tuple[str, str] | None:
    """Return the pair with the better arm first, None where the difference may be noise."""
    first, second = (scores[arm] for arm in pair)
    low, high = sorted((first.value, second.value))
    if not (math.isfinite(low) and math.isfinite(high)) or high - low <= _noise(first, second):
        return None
    # An unbiased kernel distance can be negative: it is then as good as 0.
    if high < LEAST_RATIO * low or high <= 0:
        return None
    return pair if (first.value < second.value) == minimize else (pair[1], pair[0])


def blind_to_damage(facts: ScoreFacts) -> Iterator[Finding]:
    """Yield a finding where the score does not worsen clearly as real images are spoilt."""
    blind = {way: rho for way, rho in facts.sight.items() if not rho >= CLEAR}
    if not blind:
        return
    told = ", ".join(f"{way} ({_rho(rho)})" for way, rho in blind.items())
    yield Finding(
        "blind_to_damage",
        f"`ganstudy sanity` found that it does not clearly worsen with {told}; it does from a "
        f"rank correlation of {CLEAR:g} on",
        "let a score that sees these come first in measure.metrics, or change measure.features; "
        'the report\'s table "Can these scores be trusted?" shows all scores',
    )


def _rho(rho: float) -> str:
    return "does not move" if math.isnan(rho) else f"rho {rho:.2f}"


def networks_disagree(facts: ScoreFacts) -> Iterator[Finding]:
    """Yield a finding where other features order the generators in no way or the other way."""
    against = {
        name: (rho, n)
        for name, (rho, n) in facts.agreement.items()
        if rho <= 0 and n >= FEWEST_GENERATORS
    }
    if not against:
        return
    told = ", ".join(f"{name} (rho {rho:.2f} over {n})" for name, (rho, n) in against.items())
    yield Finding(
        "networks_disagree",
        f"`ganstudy sanity` found that other features do not order the generators as it does: "
        f"{told}",
        "look at samples from both ends of the order before you believe either",
    )


RULES: Sequence[Callable[[ScoreFacts], Iterator[Finding]]] = (
    one_class,
    weak_features,
    little_training,
    few_samples,
    at_the_floor,
    judge_disagrees,
    blind_to_damage,
    networks_disagree,
)
"""In the order in which a warning lists them. To add a rule: a function, and a line here."""


def find_doubts(facts: ScoreFacts) -> list[Finding]:
    """Return every reason to doubt the score, none of a healthy study."""
    return [finding for rule in RULES for finding in rule(facts)]


def warning_text(name: str, findings: Iterable[Finding]) -> str:
    """Return the warning in one paragraph, empty without findings.

    Args:
        name: Stored name of the score.
        findings: The reasons to doubt it.
    """
    found = list(findings)
    if not found:
        return ""
    reasons = " ".join(f"({i}) {finding.evidence}." for i, finding in enumerate(found, start=1))
    advice = "; ".join(dict.fromkeys(finding.advice for finding in found))
    return (
        f"The score {name} may rank the arms wrongly, and every conclusion here rests on it: "
        f"{reasons} What to do: {advice}."
    )
