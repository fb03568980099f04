"""Statistics of tuning studies: arrays in, numbers out.

Scores are such that lower is better, and a trial that failed scores +inf: it takes part in every
order statistic and no number is made up for it. A median of infinities is infinite, honestly.
What every method is, covers and comes from stands in docs/statistics.md.
"""

from analysis.statistics.best_of_k import (
    ChanceLead,
    ExpectedBest,
    budget_grid,
    expected_best_of_k,
    largest_k_with_interval,
    lead_of_identical_arms,
    median_best_of_k,
    quantile_interval,
)
from analysis.statistics.comparing import (
    FEWEST_RUNS,
    Comparison,
    Profile,
    can_be_significant,
    holm,
    interquartile_mean,
    performance_profile,
    probability_of_improvement,
    rank_test,
    sign_test,
    smallest_rank_p,
)
from analysis.statistics.estimate import CONFIDENCE, Estimate
from analysis.statistics.permutation import (
    permutation_p,
    smallest_permutation_p,
    smallest_sign_p,
)
from analysis.statistics.rates import FirthFit, firth_logistic, rate
from analysis.statistics.ratios import (
    AcrossDatasets,
    Equivalence,
    across_datasets,
    equivalent,
    equivalent_best_of_k,
    paired_ratio,
    ratio_of_best_of_k,
)
from analysis.statistics.selection import Optimism, optimism_of_choosing, seed_optimism
from analysis.statistics.survival import Survival, kaplan_meier, log_rank, smallest_log_rank_p
from analysis.statistics.variance import (
    VarianceComponents,
    seeds_for_difference,
    seeds_to_tell,
    variance_components,
)

__all__ = [
    "CONFIDENCE",
    "FEWEST_RUNS",
    "AcrossDatasets",
    "ChanceLead",
    "Comparison",
    "Equivalence",
    "Estimate",
    "ExpectedBest",
    "FirthFit",
    "Optimism",
    "Profile",
    "Survival",
    "VarianceComponents",
    "across_datasets",
    "budget_grid",
    "can_be_significant",
    "equivalent",
    "equivalent_best_of_k",
    "expected_best_of_k",
    "firth_logistic",
    "holm",
    "interquartile_mean",
    "kaplan_meier",
    "largest_k_with_interval",
    "lead_of_identical_arms",
    "log_rank",
    "median_best_of_k",
    "optimism_of_choosing",
    "paired_ratio",
    "performance_profile",
    "permutation_p",
    "probability_of_improvement",
    "quantile_interval",
    "rank_test",
    "rate",
    "ratio_of_best_of_k",
    "seed_optimism",
    "seeds_for_difference",
    "seeds_to_tell",
    "sign_test",
    "smallest_log_rank_p",
    "smallest_permutation_p",
    "smallest_rank_p",
    "smallest_sign_p",
    "variance_components",
]
