"""A study's folder -> the arrays that statistics and figures read."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from ruamel.yaml import YAML

from ganstudy.records import TIME_LIMIT, Results, TrialStatus, load_results

DEFAULT_CONFIG = "default"
FAILURES = frozenset({TrialStatus.DIVERGED, TrialStatus.STOPPED})
"""Ways of ending that are failures of the arm."""


@dataclass(frozen=True)
class Study:
    """One study as recorded: its tables and how it was made.

    Attributes:
        folder: Where it lies.
        results: The tables.
        settings: The resolved study.
        protocol: Stored score name -> how it was measured.
        reported_protocol: The same of the scores on the report split.
        notes: What is allowed and yet not what it may seem, with the arms it is of.
        primary: Stored name of the primary score.
        sign: 1 where lower scores are better, -1 where higher ones are.
    """

    folder: Path
    results: Results
    settings: dict[str, Any]
    provenance: dict[str, Any]
    protocol: dict[str, dict[str, Any]]
    reported_protocol: dict[str, dict[str, Any]]
    notes: list[str]
    primary: str
    sign: int

    @classmethod
    def load(cls, folder: Path) -> Study:
        """Read a study's folder.

        Raises:
            FileNotFoundError: If it is no study's folder.
        """
        results = load_results(folder)
        text = (folder / "study.yaml").read_text(encoding="utf-8")
        protocol_file = folder / "protocol.json"
        if protocol_file.exists():
            protocol = json.loads(protocol_file.read_text(encoding="utf-8"))
        else:  # a study that ended before it measured anything
            protocol = {"primary": "", "minimize": True, "scores": {}}
        return cls(
            folder=folder,
            results=results,
            settings=YAML(typ="safe", pure=True).load(text),
            provenance=json.loads((folder / "provenance.json").read_text(encoding="utf-8")),
            protocol=protocol["scores"],
            reported_protocol=protocol.get("reported", {}),
            notes=protocol.get("notes", []),
            primary=protocol["primary"],
            sign=1 if protocol["minimize"] else -1,
        )

    @property
    def arms(self) -> list[str]:
        """The arms in the order of the study."""
        return list(self.settings["arms"])

    @property
    def floor(self) -> float:
        """The primary score of real images against real images, NaN if not known."""
        return float(self.protocol.get(self.primary, {}).get("floor", math.nan))

    @property
    def rule(self) -> str | None:
        """Name of the rule by which trials were stopped within their arm, None without one."""
        return next(iter(self.settings.get("stopping") or {}), None)

    @property
    def adaptive(self) -> bool:
        """Whether what was tried, or for how long, depended on how other trials went."""
        return self.settings["design"]["sampler"] == "tpe" or self.rule is not None

    def pruned(self, trials: pd.DataFrame) -> pd.Series[bool]:
        """Return which of `trials` the study's rule or its clock stopped: no outcome of theirs."""
        reasons = trials["reason"].isin([self.rule, TIME_LIMIT])
        return (trials["status"] == TrialStatus.STOPPED) & reasons

    def trials(self, arm: str) -> pd.DataFrame:
        """Return the trials of one arm that ended by their own doing, with their `score`.

        Trials that are not finished, that failed through our fault, or that were stopped because
        others did better or their time was up, are no outcome of the arm.
        """
        trials = self.results.trials
        outcome = trials["status"].isin(
            [TrialStatus.COMPLETED, TrialStatus.DIVERGED, TrialStatus.STOPPED]
        )
        mine = trials[(trials["arm"] == arm) & outcome & ~self.pruned(trials)].copy()
        scores = [self.score(row) for _, row in mine.iterrows()]
        mine["score"] = pd.Series(scores, index=mine.index, dtype=float)
        return mine

    def score(self, row: pd.Series[Any], *, keep_stopped: bool = False) -> float:
        """Return the best checkpoint's primary score (AGCE's rule), lower is better.

        A trial that diverged, or never had a finite score, scores +inf. So does one that an event
        stopped, or an arm would gain by collapsing early; with `keep_stopped` its best checkpoint
        so far counts instead.
        """
        value = row.get(f"best.{self.primary}")
        failed = {TrialStatus.DIVERGED} if keep_stopped else FAILURES
        if row["status"] in failed or value is None or not math.isfinite(value):
            return math.inf
        return self.sign * float(value)

    @property
    def unit(self) -> str:
        """What one score of an arm is of: a configuration, or a seed of a repeated one."""
        return "seed" if self._repeated else "configuration"

    @property
    def _repeated(self) -> dict[str, dict[str, Any]]:
        """Arm -> its repeated configs, best first; empty in other studies."""
        replicate = self.settings.get("replicate") or {}
        return dict(replicate.get("configs") or {})

    def counted(self, arm: str) -> pd.DataFrame:
        """Return the arm's trials that its scores are of, a run that was made twice once.

        Those at drawn configs, not at the arm's defaults; where configs are repeated, those of
        the arm's best one, which may well be its defaults.
        """
        trials = self.trials(arm)
        if self._repeated:
            mine = trials["config_id"] == next(iter(self._repeated[arm]))
        else:
            mine = trials["config_id"] != DEFAULT_CONFIG
        return trials[mine].drop_duplicates("result_hash")

    def unit_scores(self, arm: str, *, keep_stopped: bool = False) -> pd.Series[float]:
        """Return one score per unit: config -> median over seeds, or seed -> score."""
        trials = self.counted(arm)
        scores = [self.score(row, keep_stopped=keep_stopped) for _, row in trials.iterrows()]
        units = trials["seed" if self._repeated else "config_id"]
        series = pd.Series(scores, index=units, dtype=float)
        return series.groupby(level=0).median().sort_index()
