"""A study's folder, or any table of trials with the same columns -> what statistics read."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from ruamel.yaml.error import YAMLError

from analysis.bare import (
    TableError,
    completed,
    deciding_score,
    filled,
    lacking,
    seen_space,
)
from ganstudy.checksums import DamagedFile
from ganstudy.records import (
    CURVES,
    EVENTS,
    FILE_COLUMNS,
    POINTS,
    POINTS_SCHEMA,
    REPORTED,
    SANITY,
    SCHEMAS,
    TRIALS,
    column_types,
    parse_study_table,
    read_table_bytes,
)
from ganstudy.storage import read_json, read_settings
from ganstudy.study.outcomes import (
    OutcomeRule,
    ScoreRule,
    find_lasting,
    is_pruned,
    score_configs,
    score_trials,
    select_counted,
)
from ganstudy.study.yaml_text import load_yaml
from ganstudy.study_files import resolve_name
from ganstudy.table_checks import MOST_POINTS, check_size, check_texts, check_types, read_schema

UNKNOWN_DESIGN = "unknown"
"""Sampler of a bare table of trials."""
PROTOCOL_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "features": dict,
    "features_facts": dict,
    "n_generated": int,
    "n_real": int,
    "split": str,
    "floor": (int, float),
}
"""What the protocol tells of each score, at least."""
MALFORMED = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
PART = 2**18
"""Points that are looked at together."""


class Tables:
    """The tables of one folder, each read when it is first asked for."""

    def __init__(self, folder: Path, trials: str = TRIALS) -> None:
        """Read from `folder`; `trials` names the table of trials there.

        Raises:
            FileNotFoundError: If there is no such table.
        """
        self.folder, self.file, self._held = folder, trials, False
        if not (folder / trials).exists():
            raise FileNotFoundError(f"{folder} is not a study's folder: it holds no {trials}")

    def has(self, name: str) -> bool:
        """Whether there is a table, be it empty; what lies in no folder has them all."""
        return self._held or (self.folder / name).exists()

    @classmethod
    def of(cls, trials: pd.DataFrame, **others: pd.DataFrame) -> Tables:
        """Return tables that lie in no folder; those that are not given are empty."""
        made = cls.__new__(cls)
        made.folder, made.file, made._held = Path(), TRIALS, True
        frames = {
            file.removesuffix(".parquet"): schema.empty_table().to_pandas()
            for file, schema in SCHEMAS.items()
        }
        vars(made).update({"trials": trials} | frames | others)
        kept = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pandas(made.points), kept)
        vars(made)["_points"] = kept.getvalue()
        return made

    @cached_property
    def trials(self) -> pd.DataFrame:
        """One row a trial."""
        return self._read(self.file).to_pandas(ignore_metadata=True)

    @cached_property
    def points(self) -> pd.DataFrame:
        """One row a value: all of them, which are many; see `points_of`."""
        return self._table(POINTS).to_pandas(ignore_metadata=True)

    def points_of(self, *names: str) -> pd.DataFrame:
        """Return the points of these names only, by trial and update."""
        parts = [part.filter(pc.field("name").isin(names)) for part in self._scan()]
        found = pa.concat_tables([_plain(part) for part in parts])
        order = [("trial_id", "ascending"), ("discriminator_updates", "ascending")]
        return found.sort_by(order).to_pandas(ignore_metadata=True)

    def point_names(self) -> list[str]:
        """Return the names that points have, in their order of appearance."""
        found = (part["name"].unique().to_pylist() for part in self._scan("name"))
        return list(dict.fromkeys(str(name) for names in found for name in names))

    def clock(self) -> pd.DataFrame:
        """Return, by trial and update, the `wall_seconds` of its last point.

        And `before`, those of the last point before, NaN where all of an update came at once.
        """
        by = ["trial_id", "discriminator_updates", "wall_seconds"]
        parts = [_plain(part.group_by(by).aggregate([])) for part in self._scan(*by)]
        ticks = pa.concat_tables(parts).sort_by([(name, "ascending") for name in by])
        found = ticks.to_pandas(ignore_metadata=True).drop_duplicates()
        update = found[by[:2]]
        found["before"] = (
            found["wall_seconds"].shift().where((update == update.shift()).all(axis=1))
        )
        return found.drop_duplicates(by[:2], keep="last")

    def _scan(self, *columns: str) -> Iterator[pa.Table]:
        """Yield the points a part at a time, of all columns if none is named.

        All points of a large study are a hundred times what any figure is made from.
        """
        path = self.folder / POINTS
        check_types(path, read_schema(path, self._points), column_types(POINTS))
        file = pq.ParquetFile(pa.BufferReader(self._points), read_dictionary=["trial_id", "name"])
        check_size(path, file.metadata, len(self._points), MOST_POINTS)
        chosen = list(columns) or POINTS_SCHEMA.names
        there = [name for name in chosen if name in file.schema_arrow.names]
        kinds = pa.schema([POINTS_SCHEMA.field(name) for name in chosen])
        for batch in file.iter_batches(PART, columns=there):
            part = pa.Table.from_batches([batch])
            check_texts(path, part)
            yield filled(part, kinds).select(chosen)
        yield filled(file.schema_arrow.empty_table().select(there), kinds).select(chosen)

    @cached_property
    def _points(self) -> pa.Buffer | bytes:
        """The file of points as it lies on disk, compressed."""
        if (self.folder / POINTS).exists():
            return self._bytes(POINTS)
        empty = pa.BufferOutputStream()
        pq.write_table(POINTS_SCHEMA.empty_table(), empty)
        return empty.getvalue()

    @cached_property
    def events(self) -> pd.DataFrame:
        """One row an event."""
        return self._table(EVENTS).to_pandas(ignore_metadata=True)

    @cached_property
    def reported(self) -> pd.DataFrame:
        """One row a score of an arm's best generator on the report split."""
        return self._table(REPORTED).to_pandas(ignore_metadata=True)

    @cached_property
    def curves(self) -> pd.DataFrame:
        """One row a point of a line that belongs to such a score."""
        return self._table(CURVES).to_pandas(ignore_metadata=True)

    @cached_property
    def sanity(self) -> pd.DataFrame:
        """One row a score of `ganstudy sanity`."""
        return self._table(SANITY).to_pandas(ignore_metadata=True)

    def _table(self, name: str) -> pa.Table:
        there = (self.folder / name).exists()
        return filled(self._read(name), SCHEMAS[name]) if there else SCHEMAS[name].empty_table()

    def notes(self) -> list[str]:
        """Return which columns the other tables lack, where another version wrote them."""
        told = []
        for name, schema in SCHEMAS.items():
            path = self.folder / name
            if path.exists():
                content = self._points if name == POINTS else self._bytes(name)
                missing = lacking(read_schema(path, content).names, schema)
                if missing:
                    told.append(f"The table {name} has no column {', '.join(missing)}")
        return told

    def _read(self, name: str) -> pa.Table:
        return parse_study_table(self.folder / name, self._bytes(name))

    def _bytes(self, name: str) -> bytes:
        """Return a table's file; one that a user brings, without a study, may lack a checksum."""
        brought = not (self.folder / "study.yaml").exists()
        return read_table_bytes(self.folder / name, required=not brought)


@dataclass(frozen=True)
class Judgement:
    """How a study is judged, fixed before its first trial.

    Attributes:
        k: Configurations of budget at which arms are compared; None: the largest with an interval.
        margin: Relative difference below which two arms are as good as equal.
        checkpoint: "best" (AGCE's rule) or "last".
        failures: Kinds of event that make a trial a failure if they last to its end.
    """

    k: int | None = None
    margin: float = 0.1
    checkpoint: str = "best"
    failures: tuple[str, ...] = ()


def judgement_of(settings: Mapping[str, Any], place: str) -> Judgement:
    """Return how a resolved study says that it is judged.

    Raises:
        TableError: If somebody has written what cannot be.
    """
    said = dict(settings.get("judgement") or {})
    said["failures"] = tuple(said.get("failures") or ())
    rules: dict[str, tuple[Callable[[Any], bool], str]] = {
        "k": (
            lambda v: v is None or (isinstance(v, int) and v >= 1),
            "a number of configurations",
        ),
        "margin": (lambda v: isinstance(v, int | float) and v > 0, "a number above 0"),
        "checkpoint": (lambda v: v in ("best", "last"), "best or last"),
        "failures": (lambda v: all(isinstance(kind, str) for kind in v), "a list of event kinds"),
    }
    for key, value in said.items():
        if key not in rules:
            raise TableError(f"{place}: study.yaml: judgement has no key {key!r} ({[*rules]})")
        holds, what = rules[key]
        if not holds(value):
            raise TableError(f"{place}: study.yaml: judgement.{key} must be {what}, got {value!r}")
    return Judgement(**said)


@dataclass(frozen=True)
class Study:
    """One study as recorded: its tables and how it was made.

    Attributes:
        folder: Where it lies.
        results: The tables.
        settings: The resolved study.
        components: What was run, by arm and kind, with formulas and papers.
        protocol: Stored score name -> how it was measured.
        reported_protocol: The same of the scores on the report split.
        notes: What is allowed and yet not what it may seem, with the arms it is of.
        primary: Stored name of the primary score.
        sign: 1 where lower scores are better, -1 where higher ones are.
    """

    folder: Path
    results: Tables
    settings: dict[str, Any]
    provenance: dict[str, Any]
    protocol: dict[str, dict[str, Any]]
    reported_protocol: dict[str, dict[str, Any]]
    notes: list[str]
    primary: str
    sign: int
    components: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, place: Path) -> Study:
        """Read a study's folder, or a bare table of trials (a folder with one, or its file).

        Raises:
            DamagedFile: If a file does not fit its checksum.
            FileNotFoundError: If there is no table of trials.
            TableError: If the table lacks what no report can do without.
        """
        folder, name = (
            (place.parent, place.name) if place.suffix == ".parquet" else (place, TRIALS)
        )
        tables = Tables(folder, name)
        if not (folder / "study.yaml").exists():
            return _bare(folder, tables, place)
        protocol = read_protocol(folder)
        tables.trials, missing = completed(tables.trials, str(place))
        settings = read_settings_of(folder)
        _check_scores(tables.trials, folder / name)
        _check_names(tables.trials, folder / name)
        judgement_of(settings, str(place))
        missing += _missing(tables, settings)
        return cls(
            folder=folder,
            results=tables,
            settings=settings,
            provenance=_json(folder / "provenance.json"),
            protocol=protocol["scores"],
            reported_protocol=protocol.get("reported", {}),
            notes=[*protocol.get("notes", []), *missing, *tables.notes()],
            primary=protocol["primary"],
            sign=1 if protocol["minimize"] else -1,
            components=_json(folder / "components.json"),
        )

    @property
    def place(self) -> Path:
        """Where it lies: its folder, or the file of a bare table that is not called as ours."""
        file = self.results.file
        return self.folder if file == TRIALS else self.folder / file

    @property
    def name(self) -> str:
        """What the study is called: its folder, or a bare table's file."""
        return self.place.name

    @property
    def arms(self) -> list[str]:
        """The arms in the order of the study."""
        return list(self.settings["arms"])

    @property
    def controls(self) -> dict[str, tuple[str, str]]:
        """Kind of control ("same", "broken") -> its arm, and the copy that was made of it."""
        said = self.settings.get("controls") or {}
        words = {"same": "again", "broken": "broken"}
        found = {kind: (said[kind]["arm"], said[kind][words[kind]]) for kind in said if said[kind]}
        return {kind: pair for kind, pair in found.items() if set(pair) <= set(self.arms)}

    @property
    def contenders(self) -> list[str]:
        """The arms that the study asks about: all but the copies that controls added."""
        copies = {copy for _, copy in self.controls.values()}
        return [arm for arm in self.arms if arm not in copies]

    @property
    def sampler(self) -> str:
        """How configs were drawn."""
        return str(self.settings["design"]["sampler"])

    @property
    def independent(self) -> bool:
        """Whether its trials are independent draws, so that intervals and tests hold."""
        drawn = self.sampler in {"random", "replicate", UNKNOWN_DESIGN}
        return drawn and not self.adaptive

    @property
    def paired(self) -> bool:
        """Whether config i of one arm was drawn together with config i of every other."""
        return self.unit == "configuration" and bool(self.settings["design"].get("paired"))

    @property
    def floor(self) -> float:
        """The primary score of real images against real images, NaN if not known."""
        return float(self.protocol.get(self.primary, {}).get("floor", math.nan))

    @property
    def rule(self) -> str | None:
        """Name of the rule by which trials were stopped within their arm, None without one."""
        return self.outcome_rule.pruner

    @property
    def adaptive(self) -> bool:
        """Whether what was tried, or for how long, depended on how other trials went."""
        return self.sampler == "tpe" or self.rule is not None

    @property
    def judgement(self) -> Judgement:
        """How the study said beforehand that it is to be judged; the defaults if it did not."""
        return judgement_of(self.settings, self.name)

    @property
    def score_rule(self) -> ScoreRule:
        """The rule that the study is judged by."""
        return self.outcome_rule.score

    @cached_property
    def outcome_rule(self) -> OutcomeRule:
        """The rule that driver, `replicate` and report share: which trials count, and how."""
        return OutcomeRule.from_settings(self.settings, self.primary, minimize=self.sign == 1)

    @cached_property
    def primary_points(self) -> pd.DataFrame:
        """Every evaluation's primary score, by trial and update."""
        return self.results.points_of(self.primary)

    def pruned(self, trials: pd.DataFrame) -> pd.Series[bool]:
        """Return which of `trials` the study's rule or its clock stopped: no outcome of theirs."""
        return is_pruned(trials, self.rule)

    @cached_property
    def _counted(self) -> dict[str, pd.DataFrame]:
        """What `counted` has found, which a dozen sections ask for."""
        return {}

    @cached_property
    def _unit_scores(self) -> dict[tuple[str, ScoreRule], pd.Series[float]]:
        """What `unit_scores` has found."""
        return {}

    @cached_property
    def outcomes(self) -> pd.DataFrame:
        """The trials that ended by their own doing, with their `score`.

        Trials that are not finished, that failed through our fault, or that were stopped because
        others did better or their time was up, are no outcome of their arm.
        """
        return self.outcome_rule.score_outcomes(self.results.trials, self.results.events)

    @cached_property
    def _by_arm(self) -> dict[str, pd.DataFrame]:
        return {str(arm): rows for arm, rows in self.outcomes.groupby("arm", sort=False)}

    def trials(self, arm: str) -> pd.DataFrame:
        """Return the outcomes of one arm, with their `score`."""
        return self._by_arm.get(arm, self.outcomes.iloc[:0])

    def scores(self, trials: pd.DataFrame, rule: ScoreRule | None = None) -> pd.Series[float]:
        """Return the score of each trial, by default under the rule the study is judged by.

        A trial that diverged, or never had a finite score, scores +inf. So does one that an event
        stopped, or an arm would gain by collapsing early, unless the rule keeps it.
        """
        rule = rule or self.score_rule
        key = tuple(sorted(rule.failures))
        if key not in self._lasting:
            self._lasting[key] = find_lasting(self.results.events, key)
        return score_trials(trials, rule, self._lasting[key])

    @cached_property
    def _lasting(self) -> dict[tuple[str, ...], pd.Index[Any]]:
        """Kinds of event -> trials at whose end one lasted: the same ones for every score."""
        return {}

    @property
    def unit(self) -> str:
        """What one score of an arm is of: a configuration, or a seed of a repeated one."""
        return "seed" if self.outcome_rule.repeated else "configuration"

    def counted(self, arm: str) -> pd.DataFrame:
        """Return the arm's trials that its scores are of, a run that was made twice once.

        Those at drawn configs, not at the arm's defaults; where configs are repeated, those of
        the arm's best one, which may well be its defaults.
        """
        if arm not in self._counted:
            repeated = self.outcome_rule.repeated_by(arm)
            self._counted[arm] = select_counted(self.trials(arm), repeated)
        return self._counted[arm]

    def unit_scores(self, arm: str, rule: ScoreRule | None = None) -> pd.Series[float]:
        """Return one score per unit: config -> median over seeds, or seed -> score."""
        rule = rule or self.score_rule
        if (arm, rule) not in self._unit_scores:
            self._unit_scores[arm, rule] = self._score_units(arm, rule)
        return self._unit_scores[arm, rule].copy()

    def _score_units(self, arm: str, rule: ScoreRule) -> pd.Series[float]:
        trials = self.counted(arm)
        units = trials["seed" if self.unit == "seed" else "config_id"]
        return score_configs(units, self.scores(trials, rule))

    def kept(self) -> ScoreRule:
        """Return the rule by which a trial that an event stopped counts by its checkpoint."""
        return replace(self.score_rule, keep_stopped=True)


def _plain(found: pa.Table) -> pa.Table:
    """Return a table with text for dictionaries, which differ from part to part."""
    kinds = [
        field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field
        for field in found.schema
    ]
    return found.cast(pa.schema(kinds))


def _missing(tables: Tables, settings: Mapping[str, Any]) -> list[str]:
    """Return what a reader has to know of tables that are not there."""
    notes = []
    if not tables.has(EVENTS):
        judged = (settings.get("judgement") or {}).get("failures") or []
        unseen = f", and {', '.join(judged)}, which make a trial a failure, are not seen"
        told = f"There is no {EVENTS}, so what happened to trials is not known"
        notes.append(told + unseen if judged else told)
    if not tables.has(POINTS):
        notes.append(f"There is no {POINTS}, so training curves and what reads them are missing")
    return notes


def _check_scores(trials: pd.DataFrame, path: Path) -> None:
    """Refuse scores that are no numbers: a study of ours has none."""
    for column in trials:
        is_score = str(column).startswith(("best.", "last."))
        if is_score and not pd.api.types.is_numeric_dtype(trials[column].dropna().infer_objects()):
            raise DamagedFile(path, problem=f"holds no numbers in the column {column!s:.100}")


def _check_names(trials: pd.DataFrame, path: Path) -> None:
    """Refuse a table that names a file outside the study's folder, before anything is drawn."""
    for column in FILE_COLUMNS:
        for file in trials[column].dropna().unique():
            resolve_name(path.parent, file, path.name)


def read_protocol(folder: Path) -> dict[str, Any]:
    """Read how a study's scores were measured; without one it ended before it measured anything.

    Raises:
        DamagedFile: If a score lacks what the report tells of it.
    """
    path = folder / "protocol.json"
    protocol = _json(path) or {"primary": "", "minimize": True, "scores": {}}
    try:
        check_protocol(protocol)
    except MALFORMED as error:
        raise DamagedFile(path, problem=f"is no protocol ({error!r:.200})") from None
    return protocol


def check_protocol(protocol: Mapping[str, Any]) -> None:
    """Raise ValueError, KeyError or TypeError for what is no protocol."""
    kinds = {"primary": str, "minimize": bool, "scores": dict, "reported": dict, "notes": list}
    plain = {"reported": {}, "notes": []} | dict(protocol)
    wrong = [key for key, kind in kinds.items() if not isinstance(plain[key], kind)]
    texts = [*plain["notes"], *plain["scores"], *plain["reported"]]
    if wrong or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"other content than expected in {', '.join(wrong) or 'notes'}")
    for name, how in (*plain["scores"].items(), *plain["reported"].items()):
        for key, kind in PROTOCOL_TYPES.items():
            if not isinstance(how[key], kind):
                raise ValueError(f"{name}.{key} must not be {str(how[key])[:50]!r}")


def read_settings_of(folder: Path) -> dict[str, Any]:
    """Read a study's resolved YAML.

    Raises:
        DamagedFile: If it is none: it must name arms and a design.
    """
    path = folder / "study.yaml"
    try:
        settings = load_yaml(read_settings(path))
        parts = (settings["arms"], *settings["arms"].values(), settings["design"])
        whole = settings["arms"] and all(isinstance(part, dict) for part in parts)
        whole = whole and all(isinstance(arm, str) for arm in settings["arms"])
        if whole and isinstance(settings["design"]["sampler"], str):
            return dict(settings)
    except DamagedFile:
        raise
    except (YAMLError, *MALFORMED):
        pass
    raise DamagedFile(path, problem="is no study as ganstudy writes it")


def _json(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


def _bare(folder: Path, tables: Tables, place: Path) -> Study:
    """Return a study of which only a table of trials is known.

    Its primary score is the first column `best.*`, and lower is taken to be better.
    """
    tables.trials, missing = completed(tables.trials, str(place))
    primary = deciding_score(tables.trials, str(place))
    arms = {
        str(arm): {"space": seen_space(mine)}
        for arm, mine in tables.trials.groupby("arm", sort=False)
    }
    for arm in arms:
        if "%{" in arm:  # plotly would put a number in its place
            raise TableError(f"{place}: the arm {arm!r} must not hold '%{{'")
    note = (
        "There is no study.yaml beside the table, so how its trials were drawn is not known: "
        f"intervals and tests take them for independent random draws, and lower {primary} for "
        f"better"
    )
    return Study(
        folder=folder,
        results=tables,
        settings={"arms": arms, "design": {"sampler": UNKNOWN_DESIGN, "paired": False}},
        provenance={},
        protocol={},
        reported_protocol={},
        notes=[note, *missing, *tables.notes()],
        primary=primary,
        sign=1,
    )
