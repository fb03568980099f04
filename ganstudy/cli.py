"""The command line: parses, then calls one function each. Heavy modules load inside commands.

Machine output goes to stdout, progress and messages to stderr. Exit codes: 0 done, 1 more trials
lost to errors than the study allows, 2 wrong input, 3 the cluster was lost, 130 interrupted.
"""

from __future__ import annotations

import json
import os
import re
import sys
import traceback
import webbrowser
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.segment import Segment
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from ganstudy.exits import CLUSTER_LOST, INTERRUPTED, TOO_MANY_FAILED, WRONG_INPUT

if TYPE_CHECKING:
    from ganstudy.registry import StudyError
    from ganstudy.replaying import Change
    from ganstudy.store import StudyFolder
    from ganstudy.study.plan import Planned
    from ganstudy.study.spec import StudySpec
    from ganstudy.sweep.driver import Run
    from ganstudy.sweep.ending import Ending
    from ganstudy.sweep.ray_tune.jobs import Jobs


class RefusingGroup(TyperGroup):
    """Tells in one line of a damaged file that a command cannot do without."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        from ganstudy.checksums import DamagedFile

        try:
            return super().invoke(ctx)
        except DamagedFile as damage:
            refuse(str(damage))
        except UNEXPECTED as error:
            if ctx.invoked_subcommand not in READERS or os.environ.get(TRACEBACK):
                raise
            refuse(unexpected(error))


UNEXPECTED = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)
"""What a command may raise that reads a file with other content than ganstudy writes."""
READERS = frozenset({"report", "status", "why", "events"})
"""Commands that only read a study, which anybody may have written."""
TRACEBACK = "GANSTUDY_TRACEBACK"


def unexpected(error: Exception) -> str:
    """Return the message about content that no check has refused."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    told = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    return (
        f"the study cannot be read: its files hold other content than ganstudy writes, or this is "
        f"a fault of ganstudy ({told}, {place}); `ganstudy resume DIR` repairs what it can, and "
        f"{TRACEBACK}=1 shows the traceback"
    )


app = typer.Typer(
    cls=RefusingGroup,
    help="Which way of training a GAN is stable, and does it hold under the same tuning budget?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Characters that make a terminal do something, or show text in another order."""


class Careful(Console):
    """Prints no secret, whoever's message holds it: MLflow's, Ray's or a store's.

    It sends no control character to the terminal that a study's text holds.
    """

    def render(self, *arguments: Any, **options: Any) -> Iterator[Segment]:
        """Render as Console does; its own colours and movements are no text."""
        for segment in super().render(*arguments, **options):
            clean = segment.control is not None or not CONTROL.search(segment.text)
            yield segment if clean else segment._replace(text=CONTROL.sub("?", segment.text))

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as Console does."""
        super().print(*map(careful, objects), **options)


def careful(shown: object) -> object:
    """Return text without its secrets, anything else as it is."""
    from ganstudy.provenance import redact

    if isinstance(shown, str):
        return redact(shown)
    if isinstance(shown, Text) and (told := redact(shown.plain)) != shown.plain:
        return Text(told, style=shown.style)
    return shown


# Without a terminal rich would cut tables to 80 columns.
out = Careful(width=None if sys.stdout.isatty() else 140)
err = Careful(stderr=True)

StudyFile = Annotated[Path, typer.Argument(help="The study's YAML file.", metavar="STUDY")]


def at_place(named: str | Path) -> Path:
    """Return the folder or URI that was named, or refuse what cannot be reached.

    A default comes as the path that it is, in newer versions of typer.
    """
    from ganstudy.provenance import holds_secret
    from ganstudy.storage import location, reach

    text = str(named)
    if holds_secret(text):  # it would stand in tables, tags and reports
        refuse(
            f"{text}: what stands at *** would be recorded with the results; set it in the "
            f"environment instead: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    try:
        path = location(text)
        reach(path)
    except (ValueError, OSError) as error:
        refuse(str(error))
    return path


StudyDir = Annotated[
    Path, typer.Argument(help="The study's folder, or its URI.", metavar="DIR", parser=at_place)
]
Runs = Annotated[
    Path,
    typer.Option(
        help="Folder of all studies' results, or a URI: s3://bucket/runs.", parser=at_place
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one key: --set design.configs=8"),
]
TrackingUri = Annotated[
    str | None,
    typer.Option(
        envvar="MLFLOW_TRACKING_URI",
        help="MLflow store or server; RUNS/mlflow.db unless given.",
    ),
]
LONGEST = 3000
"""Characters of a message."""
FEW = 12
"""Models of a family beyond which `list` shows the family alone."""


def main() -> None:
    """Run the command line."""
    app()


def refuse(message: str) -> NoReturn:
    """Say what is wrong with the input and exit with 2."""
    if len(message) > LONGEST:  # it quotes a value that somebody else may have written
        message = f"{message[:LONGEST]} ..."
    err.print(Text(message), soft_wrap=True)
    raise typer.Exit(WRONG_INPUT)


def read(study: Path, overrides: list[str] | None = None) -> StudySpec:
    """Return the checked study, or refuse it with file, key, rule and the nearest right name."""
    from ganstudy.provenance import holds_secret, redact
    from ganstudy.registry import StudyError
    from ganstudy.study.checks import load_study

    for key, _, value in (override.partition("=") for override in overrides or ()):
        if holds_secret(value):
            refuse(
                f"--set {key}: {value} would be recorded with the results: leave the secret out"
            )
    try:
        spec = load_study(study, overrides or ())
    except StudyError as error:
        refuse(f"{study}: {error}")
    for path, text in texts(spec.resolved()):
        if holds_secret(text):
            refuse(f"{study}: {path}: {redact(text)} holds a secret, which would be recorded with "
                   f"the results: leave it out")  # fmt: skip
    return spec


def texts(settings: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """Yield key path and value of every text in nested settings."""
    for key, value in settings.items():
        if isinstance(value, str):
            yield f"{path}{key}", value
        elif isinstance(value, Mapping):
            yield from texts(value, f"{path}{key}.")


def opened(directory: Path) -> StudyFolder:
    """Return the study's folder, or refuse one that is none."""
    from ganstudy.store import StudyFolder
    from ganstudy.study_files import check_links

    if not (directory / "study.yaml").exists():
        refuse(f"{directory} is not a study's folder: it holds no study.yaml")
    check_links(directory)
    return StudyFolder(directory)


@app.command()
def check(study: StudyFile, overrides: Overrides = None) -> None:
    """Check a study: every choice and both ends of every range are built, nothing is started."""
    from ganstudy.study.plan import planned

    spec = read(study, overrides)
    names = ", ".join(arm.name for arm in spec.arms)
    trials = "an adaptive search"
    if spec.design.sampler != "tpe":
        trials = f"{sum(1 for _ in planned(spec))} trials"
    out.print(Text(f"{study}: fine, {len(spec.arms)} arms ({names}), {trials}"), soft_wrap=True)
    _print_notes(spec)
    _print_early_doubts(spec)


def _print_notes(spec: StudySpec, trials: Sequence[Planned] | None = None) -> None:
    """Tell what is allowed and yet not what it may seem."""
    from ganstudy.study.checks import notes

    for note in notes(spec, trials):
        err.print(Text(f"note: {note}", style="yellow"), soft_wrap=True)


def _print_early_doubts(spec: StudySpec) -> None:
    """Warn of a score that is known to be doubtful before the first trial."""
    from ganstudy.study.checks import score_facts
    from ganstudy.study.score_validity import find_doubts, warning_text

    facts = score_facts(spec)
    _print_warning(warning_text(facts.name, find_doubts(facts)))


def _print_score_warning(directory: Path, name: bool = False) -> None:
    """Warn of a score that a study's own records speak against; `name` says which study's."""
    from analysis.score_validity import load_score_warning

    message = load_score_warning(directory)
    _print_warning(f"{directory}: {message}" if name and message else message)


def _print_warning(message: str) -> None:
    if message:
        err.print(Text(f"warning: {message}", style="yellow"), soft_wrap=True)


@app.command()
def plan(
    study: StudyFile,
    overrides: Overrides = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what will run, what it will cost here, and what the design can and cannot tell."""
    from ganstudy.preview import preview, shortened
    from ganstudy.study.plan import planned

    spec = read(study, overrides)
    trials = [] if spec.design.sampler == "tpe" else list(planned(spec))
    found = preview(spec, trials)
    if as_json:
        print(json.dumps(found, indent=1))
        return
    table = Table("trial", "parameters", title=f"{found['study']}: {found['trials_total']} trials")
    rows = shortened(found["trials"])
    for trial in rows:
        if trial is None:
            table.add_row("...", f"{found['trials_total'] - len(rows) + 1} more (all by --json)")
            continue
        values = ", ".join(f"{k} {shown(v)}" for k, v in trial["params"].items())
        table.add_row(Text(trial["trial_id"]), Text(values))
    out.print(table)
    for line in found["cost"]["text"], *found["tells"]["text"]:
        out.print(Text(line), soft_wrap=True)
    _print_notes(spec, trials)
    _print_early_doubts(spec)


def shown(value: object) -> str:
    """Return a swept value as a person reads it."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


@app.command()
def run(
    study: StudyFile,
    runs: Runs = Path("runs"),
    name: Annotated[str | None, typer.Option(help="Name of the folder; the study's own.")] = None,
    address: Annotated[str | None, typer.Option(help="A Ray cluster; a local one.")] = None,
    overrides: Overrides = None,
    max_trials: Annotated[int | None, typer.Option(min=1, help="Stop after N trials.")] = None,
    extend: Annotated[
        bool, typer.Option("--extend", help="Add configs, seeds or arms to a study in place.")
    ] = False,
    in_process: Annotated[
        bool, typer.Option("--in-process", help="Without Ray, one trial after another.")
    ] = False,
    tracking_uri: TrackingUri = None,
) -> None:
    """Run a study from its YAML to its report."""
    from ganstudy.known_stores import remember_store
    from ganstudy.sweep.driver import Run

    spec = read(study, overrides)
    _check_name(name)
    _check_executor(spec, address, runs, in_process)
    _print_notes(spec)
    directory = runs / (name or spec.study)
    uri = _tracking(runs, tracking_uri)
    folder, spec = _extended(directory, spec) if extend else (_created(directory), spec)
    remember_store(directory, uri)
    driver = Run(spec, folder, uri, address, in_process)
    _drive(driver, max_trials, driver.begin)


def _check_name(name: str | None) -> None:
    from ganstudy.registry import StudyError
    from ganstudy.study.arm import checked_name

    if name is None:
        return
    try:
        checked_name(name)
    except StudyError as error:
        refuse(f"--name: {error}")


def _check_executor(spec: StudySpec, address: str | None, runs: Path, in_process: bool) -> None:
    """Refuse a study that this process, this machine or the cluster cannot run."""
    from ganstudy.registry import StudyError
    from ganstudy.study.checks import check_in_process

    _check_places(on_ray=not in_process and address is None)
    if not in_process and address is not None:
        _check_cluster(spec, address, runs)
        return
    _check_machine(spec)
    if in_process:
        try:
            check_in_process(spec)
        except StudyError as error:
            refuse(str(error))


def _check_places(on_ray: bool) -> None:
    """Refuse a machine that no temporary file can be written on; say what goes elsewhere.

    Args:
        on_ray: Whether this process starts a Ray of its own.
    """
    import os

    from ganstudy.store import cache_folder
    from ganstudy.sweep.temporary import LONGEST_BYTES, can_be_written, find_base, settle

    try:
        if note := settle():
            err.print(Text(f"note: {note}", style="yellow"), soft_wrap=True)
        if on_ray:
            find_base(longest=LONGEST_BYTES)
    except OSError as error:
        refuse(str(error))
    if can_be_written(cache_folder()):
        # Torch's own place for compiled code can be made by other users: /tmp/torchinductor_NAME.
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder() / "inductor"))
    else:
        err.print(Text(f"note: {cache_folder()} cannot be written: every process decodes the data "
                       f"itself; set GANSTUDY_CACHE to a folder that can be", style="yellow"),
                  soft_wrap=True)  # fmt: skip


def _check_cluster(spec: StudySpec, address: str, runs: Path) -> None:
    """Refuse a cluster that is not there, or on which no trial could run or record."""
    from ganstudy.provenance import holds_secret
    from ganstudy.storage import name_of, store_errors
    from ganstudy.sweep.ray_tune import check_cluster
    from ganstudy.sweep.source import ClusterError

    if any(map(holds_secret, sys.argv)):
        refuse("--address: Ray shows the command line of this process to all who see the cluster; "
               "give users and passwords by the environment: MLFLOW_TRACKING_USERNAME and "
               "MLFLOW_TRACKING_PASSWORD")  # fmt: skip

    def say(message: str) -> None:
        err.print(Text(message), soft_wrap=True)

    try:
        check_cluster(spec.resources, address, name_of(runs), say)
    except ClusterError as error:
        refuse(f"--address: {error}")
    except store_errors() as error:
        refuse(f"--runs: {runs} cannot be written: {error}")


def _check_machine(spec: StudySpec) -> None:
    """Refuse a study of which no trial fits on this machine."""
    import torch

    asked = spec.resources
    cores, gpus = len(os.sched_getaffinity(0)), torch.cuda.device_count()
    if asked.cpu > cores:
        refuse(f"resources.cpu: a trial asks for {asked.cpu} cores, this machine has {cores}")
    if asked.gpu > gpus:
        refuse(f"resources.gpu: a trial asks for {asked.gpu:g} GPUs, this machine has {gpus}")
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3
    if asked.memory_gib is not None and asked.memory_gib > gib:
        refuse(f"resources.memory_gib: a trial asks for {asked.memory_gib:g} GiB, this machine "
               f"has {gib:.1f}")  # fmt: skip


def _created(directory: Path) -> StudyFolder:
    from ganstudy.store import StudyFolder

    folder = StudyFolder(directory)
    try:
        folder.create()
    except BlockingIOError as error:
        refuse(str(error))
    except FileExistsError:
        if (directory / "study.yaml").exists():
            refuse(
                f"{directory} exists already: go on with it by `ganstudy resume {directory}`, "
                f"add to it by --extend, or give the new study a --name"
            )
        refuse(f"{directory} exists already and is no study's: give the new study a --name")
    except OSError as error:
        refuse(f"{directory}: cannot be made: {error.strerror}")
    return folder


def _extended(directory: Path, spec: StudySpec) -> tuple[StudyFolder, StudySpec]:
    """Return the folder of a study that `spec` adds trials to and changes none of, and `spec`.

    What it does not say of the judgement is as it was fixed before the first trial.
    """
    from ganstudy.provenance import changed
    from ganstudy.study.judgement import rejudged
    from ganstudy.sweep.driver import first_changed

    folder = opened(directory)
    old = read(directory / "study.yaml")
    changes = changed(folder.read_json("provenance.json"), *_choosers(old))
    if changes:
        refuse(
            f"--extend: since {directory} began there changed: {'; '.join(changes)}. New trials "
            f"would not compare with the old ones: give the new study a --name"
        )
    if "tpe" in (old.design.sampler, spec.design.sampler):
        same = ("sampler", "seeds", "seed")
        if any(getattr(old.design, key) != getattr(spec.design, key) for key in same):
            refuse("--extend: an adaptive study keeps its sampler and its seeds")
    if spec.stopping != old.stopping:
        refuse(f"--extend: stopping must be that of {directory}: its trials competed by it")
    if spec.design.configs < old.design.configs:
        refuse(
            f"--extend: design.configs is {old.design.configs} in {directory} and "
            f"{spec.design.configs} here; repeat what it was run with: "
            f"--set design.configs={old.design.configs}"
        )
    spec = spec.judged_like(old)
    trial_id = first_changed(spec, folder)
    if trial_id is not None:
        refuse(
            f"--extend: the study changes or drops the trial {trial_id} of {directory}; only "
            f"more configs, seeds or arms can be added (give a changed study a --name)"
        )
    other = rejudged(folder.read_json("provenance.json"), spec.judged_by)
    if other:
        refuse(
            f"--extend: {'; '.join(other)}: how {directory} is judged was fixed before its first "
            f"trial; leave it out, or give the new study a --name"
        )
    return folder, spec


def _choosers(spec: StudySpec) -> tuple[bool, bool]:
    """Return whether Optuna chooses the study's configurations, and Ray what is stopped."""
    return spec.design.sampler == "tpe", spec.stopping is not None


def _tracking(runs: Path, uri: str | None) -> str:
    """Return where runs are tracked: the file beside the studies unless given."""
    from ganstudy.paths import resolve_uri
    from ganstudy.storage import is_remote
    from ganstudy.tracking import default_uri

    if uri is None and is_remote(runs):
        refuse(f"--tracking-uri is needed: MLflow's own file cannot lie in {runs}")
    return resolve_uri(uri or default_uri(runs), Path())


def _drive(driver: Run, max_trials: int | None, first: Callable[[], object]) -> None:
    """Run what is to run and conclude, whatever happens on the way."""
    from ganstudy.sweep.ending import graceful

    with graceful() as ending:
        try:
            _conduct(driver, max_trials, first, ending)
        except KeyboardInterrupt:
            told = f"{ending.why or 'interrupted'}; `ganstudy resume {driver.folder.folder}`"
            err.print(Text(f"{told} goes on"), soft_wrap=True)
            raise typer.Exit(INTERRUPTED) from None


def _conduct(
    driver: Run, max_trials: int | None, first: Callable[[], object], ending: Ending
) -> None:
    from ganstudy.launch import launch
    from ganstudy.storage import store_errors
    from ganstudy.sweep.source import ClusterError

    try:
        outcome = launch(driver, max_trials, err, first, ending)
    except BlockingIOError as error:
        refuse(str(error))
    except ClusterError as error:
        err.print(Text(f"{error}; `ganstudy resume {driver.folder.folder}` goes on"))
        raise typer.Exit(CLUSTER_LOST) from None
    except store_errors() as error:
        err.print(Text(f"{driver.folder.folder}: {error}; rows written so far are readable, "
                       f"`ganstudy resume` goes on"), soft_wrap=True)  # fmt: skip
        raise typer.Exit(TOO_MANY_FAILED) from None
    _print_outcome(driver.folder.folder)
    for note in driver.notes:
        err.print(Text(note, style="yellow"), soft_wrap=True)
    if outcome.ended_early:
        told = f"{outcome.ended_early}; `ganstudy resume {driver.folder.folder}` goes on"
        err.print(Text(told), soft_wrap=True)
        raise typer.Exit(INTERRUPTED)
    if outcome.failed > driver.spec.max_failed_trials:
        allowed = driver.spec.max_failed_trials
        err.print(Text(f"{outcome.failed} trials were lost to errors ({allowed} allowed): "
                       f"{outcome.reasons}"), soft_wrap=True)  # fmt: skip
        raise typer.Exit(TOO_MANY_FAILED)


def _print_outcome(directory: Path) -> None:
    """Print the table of arms and where everything lies."""
    from analysis.report import summarize

    found = summarize(directory)
    table = Table(*found.columns, title=Text(f"{directory.name}: {found.score}"))
    for row in found.rows:
        table.add_row(*(Text(cell) for cell in row))
    out.print(table)
    out.print(Text(found.verdict), soft_wrap=True)
    if (directory / "report.html").exists():  # a signal may have interrupted it
        out.print(Text(f"report   {directory / 'report.html'}"), soft_wrap=True)
    tracking = _tracking_of(directory)
    out.print(Text(f"MLflow   {tracking}  (open it: ganstudy ui {directory})"), soft_wrap=True)
    _print_score_warning(directory)


def _tracking_of(directory: Path) -> str:
    """Return where a study was tracked; a secret in it was not recorded."""
    from ganstudy.paths import find_store
    from ganstudy.store import StudyFolder

    return find_store(str(StudyFolder(directory).read_json("tracking.json")["uri"]), directory)


def _tracked(folder: StudyFolder) -> str:
    """Return where a study was tracked, or refuse to guess a secret that was not recorded."""
    from ganstudy.provenance import HIDDEN

    stored = _tracking_of(folder.folder)
    bare = stored.replace(f"{HIDDEN}@", "")  # the environment may hold user and password
    if HIDDEN in bare:
        refuse(f"--tracking-uri is needed: the study was tracked at {stored}, and what *** "
               f"stands for was not recorded")  # fmt: skip
    return bare


def _confirm_store(directory: Path, uri: str, given: str | None) -> None:
    """Refuse a tracking store that came with the folder, unless the user names or named it."""
    from ganstudy.known_stores import is_known_store, remember_store
    from ganstudy.tracking import default_uri

    if given is not None:
        remember_store(directory, uri)
    elif not is_known_store(directory, uri):
        own = default_uri(directory.parent)
        refuse(
            f"{directory / 'tracking.json'} names {uri}, which was not named on this machine: "
            f"nothing was sent there. If you trust it: `ganstudy resume {directory} "
            f"--tracking-uri {uri}`; else track the study beside it: `--tracking-uri {own}`"
        )


@app.command()
def resume(
    directory: StudyDir,
    address: Annotated[str | None, typer.Option(help="A Ray cluster; a local one.")] = None,
    max_trials: Annotated[int | None, typer.Option(min=1, help="Stop after N trials.")] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try failed trials again.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Go on although code or versions changed.")
    ] = False,
    in_process: Annotated[
        bool, typer.Option("--in-process", help="Without Ray, one trial after another.")
    ] = False,
    tracking_uri: TrackingUri = None,
) -> None:
    """Go on with a study that was interrupted; a finished one gets a fresh report and sync."""
    from ganstudy.provenance import changed
    from ganstudy.study.judgement import rejudged
    from ganstudy.sweep.driver import Run, first_changed
    from ganstudy.sweep.repair import count_pending
    from ganstudy.tracking_store import SQLITE

    folder = opened(directory)
    spec = read(directory / "study.yaml")
    _check_executor(spec, address, directory.parent, in_process)
    _repair(folder, spec, tracking_uri, force)
    edited = first_changed(spec, folder)
    origin = folder.read_json("provenance.json")
    changes, other = changed(origin, *_choosers(spec)), rejudged(origin, spec.judged_by)
    if edited is not None and changes:
        refuse(
            f"{directory}: the trial {edited} is no longer what it was: since this study began "
            f"there changed {'; '.join(changes)}. Go back to the old state to go on with it; "
            f"`ganstudy report` and `status` work as they are"
        )
    if edited is not None:
        refuse(
            f"{directory}/study.yaml was edited, or its data changed: the trial {edited} is no "
            f"longer what it was (or a `run --extend` was cut short: run it again)"
        )
    unfinished = retry_failed or count_pending(spec, folder, tell) > 0
    if changes and unfinished and not force:
        refuse(
            f"{directory}: since this study began there changed: {'; '.join(changes)}. New trials "
            f"would not compare with the old ones: go back to the old state, or mark the study "
            f"as mixed by --force"
        )
    if other and not force:
        refuse(
            f"{directory}/study.yaml was edited: {'; '.join(other)}. How it is judged was fixed "
            f"before its first trial: set it back, or mark the study as mixed by --force"
        )
    uri = _tracking(directory.parent, tracking_uri or _tracked(folder))
    _confirm_store(directory, uri, tracking_uri)
    driver = Run(spec, folder, uri, address, in_process)

    def first() -> None:
        driver.identify(record_tracking=tracking_uri is not None or uri.startswith(SQLITE))
        if retry_failed:
            for identity in folder.read_plan():
                folder.trial(identity["trial_id"]).forgive()
        mixed = [*(changes if unfinished else []), *other]
        if mixed:
            driver.mark_mixed(mixed)

    _drive(driver, max_trials, first)


def _repair(folder: StudyFolder, spec: StudySpec, uri: str | None, force: bool) -> None:
    """Rebuild the damaged files of a study, or refuse it where that cannot be done."""
    from ganstudy.storage import is_remote
    from ganstudy.sweep.repair import driving, repair_study
    from ganstudy.tracking import default_uri

    runs = folder.folder.parent
    default = "that of a server" if is_remote(runs) else default_uri(runs)
    try:
        with driving(folder):
            repair_study(spec, folder, uri, default, force, tell)
    except BlockingIOError as error:
        refuse(str(error))


@app.command()
def submit(
    study: StudyFile,
    address: Annotated[
        str, typer.Option(metavar="URL", help="The cluster's dashboard: http://HEAD:8265")
    ],
    runs: Annotated[
        str, typer.Option(metavar="DIR", help="As of run: shared by all nodes, or s3://...")
    ],
    name: Annotated[str | None, typer.Option(help="Name of the folder; the study's own.")] = None,
    overrides: Overrides = None,
    max_trials: Annotated[int | None, typer.Option(min=1, help="Stop after N trials.")] = None,
    extend: Annotated[
        bool, typer.Option("--extend", help="Add configs, seeds or arms to a study in place.")
    ] = False,
    tracking_uri: Annotated[
        str | None, typer.Option(help="MLflow's server, as the cluster's head reaches it.")
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Follow it, and end with its exit code.")
    ] = True,
) -> None:
    """Run a study as a job of a Ray cluster, in a copy of the working directory."""
    spec = read(study, overrides)
    _check_name(name)
    _check_paths(study, overrides or (), [arm.name for arm in spec.arms])
    try:
        from ganstudy.sweep.ray_tune.jobs import Asked, JobError, Jobs
    except ModuleNotFoundError as error:
        refuse(f"submit needs the extra [cluster]: pip install 'ganstudy[cluster]' ({error})")
    _print_notes(spec)
    _print_early_doubts(spec)
    asked = Asked(study, runs, name, overrides or (), max_trials, extend, tracking_uri)
    try:
        arguments = asked.arguments(Path.cwd())
        jobs = Jobs(address)
        job = jobs.send(f"ganstudy-{name or spec.study}", arguments, Path.cwd())
    except JobError as error:
        refuse(str(error))
    err.print(Text(f"sent as the job {job}, recorded in {runs.rstrip('/')}/{name or spec.study}"),
              soft_wrap=True)  # fmt: skip
    if wait:
        _follow(jobs, job)
    else:
        err.print(Text(jobs.ways_on(job)), soft_wrap=True)


def _check_paths(study: Path, overrides: Sequence[str], arms: Sequence[str]) -> None:
    """Refuse a job whose data lie in the copy of the working directory, which Ray deletes."""
    from ganstudy.paths import relative_paths
    from ganstudy.study.reading import read_yaml, set_keys

    for path in relative_paths(set_keys(read_yaml(study), overrides, arms)):
        refuse(f"{study}: {path}: the job runs in a copy of this directory that Ray deletes; give "
               f"the absolute path of a folder that all nodes share")  # fmt: skip


def _follow(jobs: Jobs, job: str) -> None:
    """Show the job's output until it ends, and end as it does."""
    from ganstudy.sweep.ending import graceful
    from ganstudy.sweep.source import ClusterError

    try:
        with graceful():
            ended = jobs.follow(job, lambda text: out.file.write(text) and out.file.flush())
    except KeyboardInterrupt:
        err.print(Text(f"no longer followed, the job goes on.\n{jobs.ways_on(job)}"),
                  soft_wrap=True)  # fmt: skip
        raise typer.Exit(INTERRUPTED) from None
    except ClusterError as error:
        err.print(Text(f"{error}; what is recorded is safe.\n{jobs.ways_on(job)}"),
                  soft_wrap=True)  # fmt: skip
        raise typer.Exit(CLUSTER_LOST) from None
    if ended.exit_code is None:
        err.print(Text(f"the job {job} {ended.told}"), soft_wrap=True)
    raise typer.Exit(ended.code)


@app.command()
def status(directory: StudyDir) -> None:
    """Show how far a study is, while it runs or afterwards; changes nothing."""
    from collections import Counter

    folder = opened(directory)
    driven = folder.driven()
    rows = folder.trial_rows(running=driven)
    arms = dict.fromkeys(row["arm"] for row in rows)
    statuses = dict.fromkeys(str(row["status"]) for row in rows)
    table = Table("arm", *statuses)
    for arm in arms:
        counts = Counter(str(row["status"]) for row in rows if row["arm"] == arm)
        table.add_row(Text(arm), *(str(counts[s]) for s in statuses))
    out.print(table)
    finished = sum(row["status"].finished for row in rows)
    state = "running" if driven else "not running"
    out.print(Text(f"{directory}: {state}, {finished} of {len(rows)} trials done"))
    if driven:
        _print_progress(folder, rows)
    if not driven and finished < len(rows):
        out.print(Text(f"go on with it by `ganstudy resume {directory}`"))


def _print_progress(folder: StudyFolder, rows: list[dict[str, Any]]) -> None:
    """Say when the trials of a study that is driven last made progress."""
    import time

    from ganstudy.display import duration
    from ganstudy.sweep.watch import SILENT_SECONDS

    begun = [row["trial_id"] for row in rows if row["attempts"] and not row["status"].finished]
    times = [t for trial_id in begun if (t := folder.trial(trial_id).last_written()) is not None]
    if not times:
        return
    age = max(0.0, time.time() - max(times))
    if age < SILENT_SECONDS:
        out.print(Text(f"last progress of a trial: {duration(age)} ago"))
        return
    out.print(Text(
        f"no trial has made progress for {duration(age)}, though a driver holds the study: read "
        f"what it prints; if it hangs, end it, and `ganstudy resume {folder.folder}` goes on"
    ))  # fmt: skip


@app.command()
def report(
    directories: Annotated[
        list[Path],
        typer.Argument(
            help="A study's folder, or several to compare; a bare table of trials (.parquet) too.",
            metavar="DIR...",
            parser=at_place,
        ),
    ],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="The HTML file.")] = None,
    kinds: Annotated[
        list[str] | None,
        typer.Option("--format", help="html (default), md, csv, png, svg; may be repeated."),
    ] = None,
) -> None:
    """Write the report on a study, or on several side by side: one page that needs no network.

    Markdown goes beside it; the CSV of every table and figure, and pictures of the figures, which
    need an installed Chromium or Chrome, go into folders beside it.
    """
    from analysis.bare import TableError
    from analysis.exports import FORMATS, NoBrowserError
    from analysis.report import write_reports
    from ganstudy.registry import unknown

    for kind in kinds or []:
        if kind not in FORMATS:
            refuse(f"--format: {unknown('format', kind, FORMATS)}")
    for directory in directories:
        _refresh(directory)
    target = output or _beside(directories)
    try:
        written = write_reports(directories, target, kinds or ["html"], tell)
    except (FileNotFoundError, TableError, NoBrowserError) as error:
        refuse(str(error))
    except OSError as error:
        refuse(f"{target}: {error.strerror or error}")
    for path in written:
        out.print(Text(str(path)), soft_wrap=True)
    for directory in directories:
        _print_score_warning(directory, name=len(directories) > 1)


def tell(message: str) -> None:
    """Tell a person what is going on."""
    err.print(Text(message), soft_wrap=True)


def _beside(directories: list[Path]) -> Path:
    """Return where a report goes that nobody placed."""
    if len(directories) > 1:
        return Path("comparison.html")
    (place,) = directories
    return place.with_name("report.html") if place.suffix == ".parquet" else place / "report.html"


def _refresh(directory: Path) -> None:
    """Bring a study's tables up to what its trials have written, where that can be."""
    if not (directory / "trials").exists():  # copied tables, or a bare one
        return
    folder = opened(directory)
    try:
        if not folder.driven():
            folder.compact()
    except OSError as error:  # a read-only study still has its tables
        err.print(Text(f"the tables were not refreshed: {error.strerror}"))


@app.command()
def events(
    directory: Annotated[
        Path | None,
        typer.Argument(help="The study's folder, or its URI.", metavar="DIR", parser=at_place),
    ] = None,
    traces: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Instead of a study: logs of another system, CSV (.gz too) with the columns "
            "run,step,signal,value; - reads standard input. Prints CSV.",
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KIND.OPTION=VALUE",
            help="Change one detector: --set mode_collapse.patience=5; --set oscillation=null",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="The table; DIR/events-replayed.parquet."),
    ] = None,
) -> None:
    """Replay the detectors over what was recorded: other parameters, no training.

    The events of the record stay as they are: a second table is written.
    """
    if (directory is None) == (traces is None):
        refuse("either a study's folder DIR or --traces FILE is needed")
    if directory is not None:
        _replay_study(opened(directory), overrides or [], output)
        return
    if output is not None:
        refuse("-o goes with DIR: the events of --traces are printed")
    assert traces is not None  # or there is a DIR
    _replay_traces(traces, overrides or [])


def _replay_study(folder: StudyFolder, overrides: list[str], output: Path | None) -> None:
    from ganstudy.registry import StudyError
    from ganstudy.replaying import REPLAYED, configured, own_detectors, replay_study

    try:
        own = own_detectors(folder)
        configured(own)
    except StudyError as error:
        refuse(f"{folder.folder / 'study.yaml'}: {error}")
    try:
        config = configured(own, overrides)
    except StudyError as error:
        refuse(_of_set(error))
    target = output or folder.folder / REPLAYED
    if not target.parent.is_dir():
        refuse(f"{target}: its folder is not there")
    try:
        replay, changes = replay_study(folder, config, target)
    except StudyError as error:
        refuse(f"{folder.folder}: {error}")
    except FileExistsError:
        refuse(f"{target} is not a replay's table and stays as it is: choose another by -o")
    except OSError as error:
        refuse(f"{target}: cannot be written: {error.strerror or error}")
    _print_changes(changes)
    if folder.driven():
        err.print("the study is running: its tables may be some seconds apart")
    told = f"{replay.points} points, {len(replay.rows)} events: {target}"
    out.print(Text(told), soft_wrap=True)


def _of_set(error: StudyError) -> str:
    """Return the message for a wrong --set."""
    path = error.path.removeprefix("--set")
    return f"--set {path}: {error.rule}" if path else f"--set: {error.rule}"


def _print_changes(changes: list[Change]) -> None:
    table = Table(title="trials with an event", title_justify="left")
    for header in ("arm", "kind", "record", "replay", "changed"):
        table.add_column(header, no_wrap=header == "kind")
    for change in changes:
        counts = str(change.recorded), str(change.replayed)
        table.add_row(Text(change.arm), change.kind, *counts, Text(change.told()))
    if changes:
        out.print(table)
    if all(change.nothing for change in changes):
        out.print("the replay tells what the record tells, row for row")


def _replay_traces(path: Path, overrides: list[str]) -> None:
    import csv

    from ganstudy.registry import StudyError
    from ganstudy.replaying import configured
    from ganstudy.traces import RunEvent, read_traces, run_events

    try:
        config = configured({}, overrides)
    except StudyError as error:
        refuse(_of_set(error))
    try:
        traces = read_traces(path)
    except StudyError as error:
        refuse(str(error))
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(RunEvent._fields)
    writer.writerows(run_events(traces, config))
    for note in traces.notes():
        err.print(Text(note), soft_wrap=True)


@app.command()
def why(
    directory: StudyDir,
    trial: Annotated[str, typer.Argument(help="A trial's id, or its beginning.", metavar="TRIAL")],
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write one offline page too.")
    ] = None,
) -> None:
    """Tell a trial's story: its events with evidence, its samples, the nearest healthy trial."""
    from ganstudy.registry import StudyError
    from ganstudy.storage import write_text
    from ganstudy.telling import page, tell
    from ganstudy.why import story

    try:
        told = story(opened(directory), trial)
    except StudyError as error:
        refuse(f"{directory}: {error}")
    tell(told, out)
    if html is None:
        return
    try:
        write_text(html, page(told))
    except OSError as error:
        refuse(f"{html}: {error.strerror or error}")
    out.print(Text(str(html)), soft_wrap=True)


@app.command()
def sanity(
    directory: StudyDir,
    features: Annotated[
        list[str] | None,
        typer.Option(
            "--features", metavar="NAME", help="Network to compare with the study's own."
        ),
    ] = None,
    generators: Annotated[int, typer.Option(min=4, help="Most generators to rank.")] = 24,
    repeats: Annotated[int, typer.Option(min=1, help="Draws of real images for each level.")] = 5,
) -> None:
    """Measure whether the study's scores can be trusted, and tell it in the report."""
    from analysis.report import write_report
    from ganstudy.registry import StudyError
    from ganstudy.sweep.sanity import Asked, measured, networks

    folder = opened(directory)
    spec = read(directory / "study.yaml")
    try:
        asked = Asked(networks(spec, features or ()), generators, repeats)
        folder.lock()
    except StudyError as error:
        refuse(f"--features: {error}")
    except OSError as error:
        refuse(str(error))
    try:
        readings = measured(spec, folder, asked, err)
        folder.write_sanity([reading._asdict() for reading in readings])
        write_report(directory, directory / "report.html")
    except KeyboardInterrupt:
        err.print("interrupted: nothing was written")
        raise typer.Exit(INTERRUPTED) from None
    except OSError as error:
        refuse(f"{directory}: {error.strerror or error}")
    finally:
        folder.unlock()
    out.print(Text(f"{len(readings)} scores; report {directory / 'report.html'}"), soft_wrap=True)
    _print_score_warning(directory)


@app.command()
def ui(
    directory: StudyDir,
    port: Annotated[int, typer.Option(help="Port on loopback.")] = 5000,
    open_browser: Annotated[
        bool, typer.Option("--open/--no-open", help="Open a browser on the study.")
    ] = True,
) -> None:
    """Serve MLflow on loopback, opened on this study, until Ctrl-C."""
    from ganstudy.tracking import serve
    from ganstudy.tracking_store import store_path

    folder = opened(directory)
    uri = _tracking_of(folder.folder)
    if store_path(uri) is None:
        out.print(Text(f"this study is tracked by the server at {uri}"), soft_wrap=True)
        return
    _confirm_store(directory, uri, None)
    try:
        page = _track_again(folder, uri)
    except (LookupError, OSError) as error:
        refuse(str(error))

    err.print(Text("starting MLflow's server, which takes some seconds ..."))

    def ready(address: str) -> None:
        out.print(Text(f"{address}{page}  (Ctrl-C ends it)"), soft_wrap=True)
        if open_browser:
            webbrowser.open(address + page)

    try:
        serve(uri, port, ready)
    except OSError as error:
        refuse(f"--port {port}: {error.strerror or error}")


def _track_again(folder: StudyFolder, uri: str) -> str:
    """Bring MLflow's file up to date unless the study's driver does; return the study's page."""
    from ganstudy.tracking import Tracker

    tracker = Tracker(
        folder.folder, uri, lambda kind, text: tell(text) if kind == "note" else None
    )
    try:
        folder.lock()
    except OSError:  # somebody drives the study, or it is read-only
        return tracker.experiment_url()
    try:
        if (folder.folder / "trials").exists():  # else the tables were copied alone
            folder.compact()
        return tracker.catch_up()
    finally:
        folder.unlock()


@app.command("list")
def list_components(
    kind: Annotated[str | None, typer.Argument(help="loss, metric, ...", metavar="KIND")] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Everything that describe tells, as one page.")
    ] = False,
) -> None:
    """List every registered component and recipe: by kind, with one line and its paper."""
    from ganstudy.catalog import REGISTRIES
    from ganstudy.reference import markdown as page
    from ganstudy.registry import unknown
    from ganstudy.study.recipes import RECIPES, families

    if markdown:
        print(page(), end="")
        return
    if kind is not None and kind not in {*REGISTRIES, "recipe"}:
        refuse(unknown("kind", kind, [*REGISTRIES, "recipe"]))
    table = Table("kind", "name", "what it is", "source")
    for key, registry in REGISTRIES.items():
        for name in registry.names() if kind in (None, key) else ():
            line = (registry.get(name).__doc__ or "").strip().splitlines()[0]
            table.add_row(key, Text(name), Text(line), Text(registry.paper(name)))
    for family, models in families().items() if kind in (None, "recipe") else ():
        recipe = RECIPES[f"{family}/{models[0]}"]
        table.add_row("recipe", Text(family), Text(recipe.summary), Text(recipe.source))
        shown = models if kind == "recipe" or len(models) <= FEW else ()
        for model in shown:
            table.add_row("recipe", Text(f"{family}/{model}"), "", "")
    out.print(table)


@app.command()
def describe(
    name: Annotated[str, typer.Argument(help="A component's or a recipe's name.", metavar="NAME")],
) -> None:
    """Describe one component: options, defaults, paper, and what public codes do differently."""
    from ganstudy.catalog import REGISTRIES
    from ganstudy.registry import unknown
    from ganstudy.study.recipes import RECIPES, families

    if name in RECIPES:
        _describe_recipe(name)
        return
    if name in families():
        recipe = RECIPES[f"{name}/{families()[name][0]}"]
        out.print(Text(f"recipes {name}", style="bold"))
        out.print(Text(f"{recipe.summary}\nsource: {recipe.source}"))
        out.print(Text(", ".join(f"{name}/{model}" for model in families()[name])))
        return
    found = [(kind, r) for kind, r in REGISTRIES.items() if name in r.names()]
    if not found:
        known = {name for registry in REGISTRIES.values() for name in registry.names()}
        refuse(unknown("component", name, known | set(RECIPES) | set(families())))
    for kind, registry in found:
        out.print(Text(f"{kind} {name}", style="bold"))
        out.print(Text(_dedent(registry.get(name).__doc__ or "")))
        if registry.paper(name):
            out.print(Text(f"source: {registry.paper(name)}"))
        table = Table("option", "default", "values", "what it is")
        for option in registry.options(name):
            values = ", ".join(map(str, option.choices))
            table.add_row(option.name, Text(str(option.default)), values, Text(option.help))
        if table.row_count:
            out.print(table)


def _describe_recipe(name: str) -> None:
    from ruamel.yaml import YAML

    from ganstudy.study.recipes import RECIPES

    recipe = RECIPES[name]
    out.print(Text(f"recipe {name}", style="bold"))
    out.print(Text(f"{recipe.summary}\nsource: {recipe.source}"))
    yaml = YAML()
    yaml.dump({"settings": recipe.settings, "spaces": recipe.spaces,
               "agce_code": recipe.agce_code}, sys.stdout)  # fmt: skip


def _dedent(docstring: str) -> str:
    import inspect

    return inspect.cleandoc(docstring)


@app.command()
def schema() -> None:
    """Print the JSON schema of a study's YAML, for editors."""
    from ganstudy.catalog import study_schema

    print(json.dumps(study_schema(), indent=1))


@app.command()
def doctor() -> None:
    """Show what this machine offers, and what a study would miss."""
    from ganstudy.doctor import examine

    table = Table("what", "found", "")
    findings = examine()
    for finding in findings:
        mark = Text("ok", style="green") if finding.fine else Text("look", style="yellow")
        table.add_row(Text(finding.what), Text(finding.found), mark)
    out.print(table)


if __name__ == "__main__":
    main()
