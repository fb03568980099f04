"""How long the report of a large study takes, in what memory, and how large it is.

    python benchmarks/report.py [TRIALS ...] [--keep FOLDER]

Makes studies like phase 1 of "Are GANs Created Equal?" (Lucic et al. 2018, arXiv:1711.10337) as
the driver would have written them: the seven adversarial arms of studies/agce_wide.yaml and its
ranges, 20 evaluations of 12 metrics a trial, a fifth of the trials failed, four events a trial.
Scores are drawn from a made-up surface over the ranges; nothing is trained.

Goals: the report of 7,200 trials in 60 s and 1.5 GiB with 15 MB of HTML, its figures' data and the
table of trials included; and ten times the trials in at most twelve times the time, from 720 to
72,000, each report made in a process of its own. Growth is of processor time, which other work on
the machine changes little.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from ruamel.yaml import YAML

from analysis import html, report
from analysis.verdict import verdict
from ganstudy.provenance import provenance
from ganstudy.records import (
    EVENTS,
    EVENTS_SCHEMA,
    POINTS,
    POINTS_SCHEMA,
    REPORTED,
    REPORTED_SCHEMA,
    TRIAL_COLUMNS,
    TRIALS,
    TrialStatus,
)
from ganstudy.storage import write_checked  # noqa: E402
from ganstudy.store import StudyFolder
from ganstudy.study.spec import StudySpec, parse_study

WIDE = Path(__file__).parents[1] / "studies" / "agce_wide.yaml"
SIZES = (720, 7_200, 72_000)
JUDGED = 7_200
"""Trials whose report has goals of its own."""
SECONDS, GIB, MB, GROWTH = 60.0, 1.5, 15.0, 12.0
EVALUATIONS, UPDATES, BATCH = 20, 3_000, 64
METRICS = {
    "fd_small_cnn_1k": "minimize", "kd_small_cnn_1k": "minimize",
    "precision_small_cnn_1k": "maximize", "recall_small_cnn_1k": "maximize",
    "density_small_cnn_1k": "maximize", "coverage_small_cnn_1k": "maximize",
    "diversity_small_cnn_1k": "maximize", "is_small_cnn_1k": "maximize",
    "f_8_small_cnn_1k": "maximize", "f_1_8_small_cnn_1k": "maximize",
    "swd_pixels_1k": "minimize", "spectrum_pixels_1k": "minimize",
}  # fmt: skip
"""Stored score -> which way is better; the first is the primary one."""
KINDS = ("checkerboard", "discriminator_overpowering", "mode_dropping", "no_learning", "recovery")
"""Events that stopped nothing."""
STOPPING = "mode_collapse"
PICTURES = 64
Floats = NDArray[np.float64]


class Trials(NamedTuple):
    """What the tables are made from; arrays are by trial, in the order of the plan.

    Attributes:
        frame: Who each trial is, with `param.*`.
        scores: Primary score by trial and evaluation, (n, 20); NaN once it diverged.
        last: Number of each trial's last evaluation.
    """

    frame: pd.DataFrame
    scores: Floats
    last: NDArray[np.int64]


def spec_of(trials: int) -> StudySpec:
    """Return the study: seven arms, as many configs as there are trials for."""
    text = YAML(typ="safe").load(WIDE)
    text["design"] = text["design"] | {"configs": -(-trials // 7)}
    text["events"] = {"stop_on": [STOPPING]}
    spec = parse_study(text)
    return replace(spec, arms=tuple(arm for arm in spec.arms if arm.name != "vae"))


def write_study(folder: Path, trials: int) -> None:
    """Write a study of so many trials, the same ones every time."""
    spec, rng = spec_of(trials), np.random.default_rng(0)
    study = StudyFolder(folder)
    study.create()
    with (folder / "study.yaml").open("w", encoding="utf-8") as file:
        YAML().dump(spec.resolved(), file)
    add_checksums(folder, "study.yaml")
    study.write_json("provenance.json", provenance())
    study.write_json("protocol.json", protocol())
    write_pictures(folder, rng)
    made = draw(spec, trials, rng)
    write_points(folder / POINTS, made, rng)
    write_events(folder / EVENTS, made, rng)
    rows = trial_rows(made, rng)
    pq.write_table(rows, folder / TRIALS)
    write_reported(folder / REPORTED, rows.to_pandas())
    add_checksums(folder, POINTS, EVENTS, TRIALS, REPORTED)


def add_checksums(folder: Path, *names: str) -> None:
    """Give files the checksums that the driver would have written."""
    for name in names:
        write_checked(folder / name, (folder / name).read_bytes())


def protocol() -> dict[str, Any]:
    """Return how every score was measured, as `prepare` would have written it."""
    shared = {
        "features": {"name": "small_cnn", "epochs": 5, "seed": 0}, "features_hash": "made up",
        "features_facts": {"accuracy_select": 0.966}, "dimension": 64, "chooses": True,
        "n_generated": 1000, "n_real": 1000, "n_floor": 1000, "noise_seed": 0, "resize": "none",
        "reads": "features", "evaluated": "at every evaluation", "generator": "sampled",
    }  # fmt: skip

    def scores(split: str) -> dict[str, Any]:
        return {
            name: shared
            | {"metric": {"name": name}, "direction": way, "floor": _floor(way), "split": split}
            for name, way in METRICS.items()
        }

    primary = next(iter(METRICS))
    return {
        "primary": primary, "minimize": True, "notes": [], "scores": scores("select"),
        "reported": scores("report"),
    }  # fmt: skip


def _floor(way: str) -> float:
    return 5.2 if way == "minimize" else 0.97


def write_pictures(folder: Path, rng: np.random.Generator) -> None:
    """Write some grids of blots, which trials share."""
    (folder / "samples").mkdir()
    for number in range(PICTURES):
        blots = rng.integers(0, 2, (64, 64), dtype=np.uint8) * 255
        Image.fromarray(blots).resize((224, 224)).save(folder / _picture(number))


def _picture(number: int) -> str:
    return f"samples/{number:02d}.png"


def draw(spec: StudySpec, trials: int, rng: np.random.Generator) -> Trials:
    """Draw configs, paired over arms, and what comes of them."""
    n_arms = len(spec.arms)
    configs = -(-trials // n_arms)
    position = {key: rng.random(configs) for arm in spec.arms for key in sorted(arm.space)}
    frames = []
    for index, arm in enumerate(spec.arms):
        values = {
            f"param.{key}": [kind.at(u) for u in position[key]] for key, kind in arm.space.items()
        }
        ids = ["default", *(f"c{config:02d}" for config in range(configs - 1))]
        frame = pd.DataFrame(values).assign(arm=arm.name, config_id=ids)
        frame.loc[0, [*values]] = None
        frame["badness"] = _badness(position, index, rng)
        frames.append(frame)
    frame = pd.concat(frames).sort_index(kind="stable").iloc[:trials].reset_index(drop=True)
    frame["trial_id"] = frame["arm"] + "-" + frame["config_id"] + "-s0"
    return _trained(frame, rng)


def _badness(position: Mapping[str, Floats], index: int, rng: np.random.Generator) -> Floats:
    """Return how bad each config is, about 0 to 3: best in mid range of the learning rate."""
    lr, beta1 = position["optimizer.lr"], position["optimizer.beta1"]
    noise = 0.2 * rng.standard_normal(len(lr))
    return 6 * (lr - 0.6) ** 2 + 0.5 * beta1 + 0.05 * index + np.abs(noise)


def _trained(frame: pd.DataFrame, rng: np.random.Generator) -> Trials:
    """Return the scores over training: they fall, and a fifth of the trials fail on the way."""
    n = len(frame)
    badness = frame.pop("badness").to_numpy()[:, None]
    share = np.arange(EVALUATIONS) / (EVALUATIONS - 1)
    end = 20 * np.exp(badness)
    scores = end + (2000 - end) * np.exp(-8 * share)
    scores *= np.exp(0.05 * rng.standard_normal((n, EVALUATIONS)))
    fails = rng.random(n) < np.clip(0.35 * badness[:, 0], 0.05, 0.6) * 0.7
    diverges = fails & (rng.random(n) < 0.5)
    at = rng.integers(2, EVALUATIONS, n)
    scores[diverges[:, None] & (np.arange(EVALUATIONS) >= at[:, None])] = np.nan
    frame["status"] = np.select(
        [diverges, fails], [TrialStatus.DIVERGED, TrialStatus.STOPPED], TrialStatus.COMPLETED
    )
    frame["reason"] = np.where(fails & ~diverges, STOPPING, "")
    last = np.where(fails & ~diverges, at, EVALUATIONS - 1)
    return Trials(frame, scores, last)


def others(scores: Floats, rng: np.random.Generator) -> Iterator[tuple[str, Floats]]:
    """Yield the values of every metric: the primary one's, and others that follow it."""
    for number, (name, way) in enumerate(METRICS.items()):
        if number == 0:
            yield name, scores
            continue
        noise = np.exp(0.1 * rng.standard_normal(scores.shape))
        yield name, scores * noise / 10 if way == "minimize" else 1 / (1 + scores * noise / 100)


def updates() -> NDArray[np.int64]:
    """Return the discriminator updates of the evaluations."""
    return np.linspace(0, UPDATES, EVALUATIONS).round().astype(np.int64)


def write_points(path: Path, made: Trials, rng: np.random.Generator) -> None:
    """Write the points as the driver does, trial by trial, a few thousand trials at a time."""
    with pq.ParquetWriter(path, POINTS_SCHEMA) as writer:
        for first in range(0, len(made.frame), JUDGED):
            part = slice(first, first + JUDGED)
            chunk = Trials(made.frame.iloc[part], made.scores[part], made.last[part])
            writer.write_table(_points(chunk, rng), row_group_size=1024**2)


def _points(made: Trials, rng: np.random.Generator) -> pa.Table:
    n, metrics = len(made.frame), len(METRICS)
    values = np.stack([values for _, values in others(made.scores, rng)], axis=-1)
    evaluation = np.arange(EVALUATIONS)
    kept = np.broadcast_to((evaluation <= made.last[:, None])[:, :, None], values.shape).ravel()
    at = np.broadcast_to(updates()[None, :, None], values.shape).ravel()[kept]
    clock = np.broadcast_to(_clock(n, rng)[:, :, None], values.shape).ravel()[kept]
    trial = np.repeat(np.arange(n, dtype=np.int32), EVALUATIONS * metrics)[kept]
    name = np.tile(np.arange(metrics, dtype=np.int32), n * EVALUATIONS)[kept]
    columns = [
        pa.DictionaryArray.from_arrays(trial, made.frame["trial_id"].to_list()).cast(pa.string()),
        pa.DictionaryArray.from_arrays(name, list(METRICS)).cast(pa.string()),
        at, at, at * BATCH, clock, values.ravel()[kept],
    ]  # fmt: skip
    return pa.Table.from_arrays([pa.array(c) for c in columns], schema=POINTS_SCHEMA)


def _clock(n: int, rng: np.random.Generator) -> Floats:
    """Return the seconds of every evaluation, (n, 20): some trials are slower."""
    return np.outer(rng.uniform(0.8, 1.4, n), 1.0 + 2.0 * np.arange(EVALUATIONS))


def write_events(path: Path, made: Trials, rng: np.random.Generator) -> None:
    """Write what stopped or broke a trial, and three or four events that did not."""
    at, ids = updates(), made.frame["trial_id"].to_numpy()
    status = made.frame["status"].to_numpy()
    rows = []
    for kind, hit in (
        ("divergence", status == TrialStatus.DIVERGED),
        (STOPPING, (status == TrialStatus.STOPPED) | (rng.random(len(ids)) < 0.4)),
        *((kind, rng.random(len(ids)) < 0.6) for kind in KINDS),
    ):
        detected = np.maximum(1, (rng.random(hit.sum()) * made.last[hit]).astype(int))
        detected = np.where(status[hit] == TrialStatus.STOPPED, made.last[hit], detected)
        told = {"signal": "probe/auc", "limit": 0.99, "rule": "at three evaluations running"}
        evidence = [json.dumps(told | {"value": value}) for value in rng.random(hit.sum())]
        rows.append(
            pd.DataFrame(
                {"trial_id": ids[hit], "kind": kind, "onset": at[detected - 1],
                 "detected": at[detected], "ended": pd.array([None] * hit.sum(), dtype="Int64"),
                 "severity": rng.random(hit.sum()), "evidence": evidence}
            )
        )  # fmt: skip
    frame = pd.concat(rows).sort_values(["trial_id", "detected"], kind="stable")
    table = pa.Table.from_pandas(frame, schema=EVENTS_SCHEMA, preserve_index=False)
    pq.write_table(table.replace_schema_metadata(), path)  # the driver's tables know no pandas


def trial_rows(made: Trials, rng: np.random.Generator) -> pa.Table:
    """Return trials.parquet: who, how it ended, what was swept, its best and its last scores."""
    frame, n, at = made.frame.copy(), len(made.frame), updates()
    inside = np.arange(EVALUATIONS) <= made.last[:, None]
    best = np.where(inside & np.isfinite(made.scores), made.scores, np.inf).argmin(axis=1)
    seconds = _clock(n, rng)[np.arange(n), made.last]
    frame = frame.assign(
        study="agce_wide", seed=0, result_hash=frame["trial_id"], best_at=at[best],
        generator_updates=at[made.last], discriminator_updates=at[made.last],
        images_seen=at[made.last] * BATCH, started_at=1.8e9 + np.arange(n), seconds=seconds,
        train_seconds=0.8 * seconds, evaluate_seconds=0.2 * seconds, attempts=1, torch="2.13.0",
        cpu_capability="AVX512", threads=1, memory_format="channels_last", device="cpu", node="n",
        samples=[_picture(i % PICTURES) for i in range(n)],
        samples_best=[_picture((i + 1) % PICTURES) for i in range(n)],
    )  # fmt: skip
    for name in ("config", "generator_best", "generator_last"):
        frame[name] = "trials/" + frame["trial_id"] + f"/attempt-1/{name}"
    scores = {}
    for name, values in others(made.scores, rng):
        scores[f"best.{name}"] = values[np.arange(n), best]
        scores[f"last.{name}"] = values[np.arange(n), made.last]
    frame = pd.concat([frame, pd.DataFrame(scores)], axis=1)
    fixed = {name for name, _ in TRIAL_COLUMNS}
    extra = sorted(str(name) for name in frame if name not in fixed)
    kinds = [(c, pa.float64() if frame[c].dtype.kind == "f" else pa.string()) for c in extra]
    schema = pa.schema([*TRIAL_COLUMNS, *kinds])
    rows = pa.Table.from_pandas(frame, schema=schema, preserve_index=False)
    return rows.replace_schema_metadata()


def write_reported(path: Path, trials: pd.DataFrame) -> None:
    """Write the scores of each arm's best trial on the report split."""
    primary = f"best.{next(iter(METRICS))}"
    done = trials[trials["status"] == TrialStatus.COMPLETED]
    best = done.loc[done.groupby("arm", sort=False)[primary].idxmin()]
    parts = [
        best[["arm", "trial_id"]].assign(
            discriminator_updates=best["best_at"], name=name, split="report", n_generated=1000,
            n_real=1000, value=1.02 * best[f"best.{name}"], standard_error=0.1, floor=_floor(way),
        )
        for name, way in METRICS.items()
    ]  # fmt: skip
    table = pa.Table.from_pandas(pd.concat(parts), REPORTED_SCHEMA, preserve_index=False)
    pq.write_table(table, path)


class Made(NamedTuple):
    """What making one report took.

    Attributes:
        cpu: Seconds of processor time: what the machine's other work does not change.
        parts: What -> such seconds; the first to ask for a table pays for its reading.
    """

    trials: int
    seconds: float
    cpu: float
    gib: float
    mb: float
    parts: dict[str, float]


def make_report(folder: Path, page: Path) -> dict[str, Any]:
    """Write a report in this process; return seconds by part and the peak of its memory."""
    spent: dict[str, float] = {}

    def timed(name: str, call: Any) -> Any:
        def run(*given: Any) -> Any:
            begun = time.process_time()
            try:
                return call(*given)
            finally:
                spent[name] = spent.get(name, 0.0) + time.process_time() - begun

        return run

    sections = [
        timed(f"{s.__module__.removeprefix('analysis.')}.{s.__name__}", s) for s in report.SECTIONS
    ]
    report.SECTIONS[:] = sections
    vars(report)["verdict"] = timed("verdict", verdict)
    vars(html)["render"] = timed("html.render", html.render)
    report.write_report(folder, page)
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return {"parts": spent, "gib": int(peak.split()[1]) / 2**20, "cpu": time.process_time()}


def measured(folder: Path, trials: int) -> Made:
    """Make a report in a process of its own."""
    page = folder / "report.html"
    begun = time.perf_counter()
    ran = subprocess.run(
        [sys.executable, __file__, "--make", str(folder), str(page)],
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    seconds, told = time.perf_counter() - begun, json.loads(ran.stdout.splitlines()[-1])
    mb = page.stat().st_size / 1e6
    return Made(trials, seconds, told["cpu"], told["gib"], mb, told["parts"])


def told(made: Made) -> list[str]:
    """Return in words what a report took, and whether the goals of `JUDGED` trials are reached."""
    lines = [f"{made.trials:,} trials"]
    for name, value, goal, unit in (
        ("time", made.seconds, SECONDS, "s"),
        ("peak memory", made.gib, GIB, "GiB"),
        ("page", made.mb, MB, "MB"),
    ):
        judged = f" (goal {goal:g} {unit}: {reached(value, goal)})" * (made.trials == JUDGED)
        lines.append(f"  {name}: {value:.2f} {unit}{judged}")
    lines.append(f"  processor time: {made.cpu:.1f} s, of which")
    parts = sorted(made.parts.items(), key=lambda part: -part[1])
    lines += [f"    {name}: {seconds:.2f} s" for name, seconds in parts if seconds >= 0.05]
    return lines


def growth(made: Sequence[Made]) -> list[str]:
    """Return by how much time grows from size to size, beside by how much the trials do."""
    lines = []
    for less, more in zip(made, made[1:], strict=False):
        times, of = more.cpu / less.cpu, more.trials / less.trials
        goal = GROWTH / 10 * of
        lines.append(
            f"{less.trials:,} to {more.trials:,} trials: {times:.1f} times the processor time "
            f"for {of:.0f} times the trials (goal {goal:.0f}: {reached(times, goal)})"
        )
    return lines


def reached(value: float, goal: float) -> str:
    """Return whether a goal is met."""
    return "reached" if value <= goal else "not reached"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description="What the report of a large study takes.")
    parser.add_argument("trials", nargs="*", type=int, default=SIZES)
    parser.add_argument("--keep", type=Path, help="make the studies here and keep them")
    parser.add_argument("--make", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.make:
        print(json.dumps(make_report(*options.make)))
        return
    out, made = Console(highlight=False), []
    with tempfile.TemporaryDirectory() as aside:
        place = options.keep or Path(aside)
        for trials in sorted(options.trials):
            folder = place / f"agce-{trials}"
            if not (folder / TRIALS).exists():
                write_study(folder, trials)
            made.append(measured(folder, trials))
            out.print("\n".join(told(made[-1])))
    out.print("\n".join(growth(made)))


if __name__ == "__main__":
    main()
