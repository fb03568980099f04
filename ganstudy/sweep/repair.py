"""Damaged files of a study: rebuild what the study determines, keep the damaged file aside.

`study.yaml` determines the plan, the components and, with the data, the protocol. Trials are
deterministic: one whose attempt is damaged is run again. Nothing else says which code the trials
ran with, or where they were tracked: there the user decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from ganstudy.paths import stored_uri
from ganstudy.provenance import provenance, redact
from ganstudy.records import CURVES, REPORTED, SANITY, read_table
from ganstudy.storage import DamagedFile, names_in
from ganstudy.store import (
    COMPONENTS,
    FAILURE,
    STOP,
    StudyFolder,
    TrialFolder,
)
from ganstudy.study.components import components
from ganstudy.study.judgement import fixed
from ganstudy.study.plan import plan
from ganstudy.study.spec import StudySpec
from ganstudy.sweep.driver import pending
from ganstudy.trial import TrialSpec

UNKNOWN_ORIGIN = "provenance.json was damaged: which code and versions ran before is not known"
PROVENANCE_KEYS = ("code_hash", "commit", "packages")
"""What a resume compares with the code and the versions that are installed."""


class Repair:
    """Checks the files of a study that no trial holds, and rebuilds the damaged ones."""

    def __init__(self, spec: StudySpec, folder: StudyFolder, say: Callable[[str], object]) -> None:
        """Repair the locked study in `folder`; `say` takes one line for each damaged file."""
        self.spec, self.folder, self.say = spec, folder, say

    def damage_of(self, name: str, read: Callable[[], object]) -> DamagedFile | None:
        """Return what is wrong with the file `name`, which `read` reads; None if nothing is."""
        try:
            read()
        except DamagedFile as damage:
            return damage
        except FileNotFoundError:
            return DamagedFile(self.folder.folder / name, problem="is missing")
        return None

    def set_aside(self, damage: DamagedFile, name: str, then: str) -> None:
        """Keep a damaged file of the study under another name; say what takes its place."""
        kept = ""
        if name in names_in(self.folder.folder):
            kept = f"; the damaged file is kept as {self.folder.set_aside(name)}"
        self.say(f"{damage.path} {damage.problem}: {then}{kept}")

    def plan(self) -> None:
        """Rebuild the plan from `study.yaml`, which must describe the trials that have begun.

        Raises:
            DamagedFile: If it cannot be rebuilt, or if `study.yaml` was edited.
        """
        damage = self.damage_of("plan.jsonl", self.folder.read_plan)
        if self.spec.design.sampler == "tpe":
            if damage is not None:
                raise DamagedFile(damage.path, self._tpe_remedy(), damage.problem)
            return
        identities = [trial.identity() for trial in plan(self.spec)]
        if damage is None:
            self._check_plan(identities)
            return
        self._check_begun({str(row["trial_id"]): row["result_hash"] for row in identities})
        self.set_aside(damage, "plan.jsonl", "rebuilt from study.yaml")
        self.folder.write_plan(identities)

    def _check_plan(self, identities: Sequence[dict[str, Any]]) -> None:
        """Refuse a `study.yaml` that describes more than the plan, or another study's trials."""
        planned = {row["trial_id"]: row["study"] for row in self.folder.read_plan()}
        for row in identities:
            if planned.get(row["trial_id"]) != row["study"]:
                raise DamagedFile(
                    self.folder.folder / "study.yaml",
                    "set it back, or add trials by `ganstudy run STUDY --extend`",
                    f"was edited: the trial {row['trial_id']} of the study {row['study']} is not "
                    f"in plan.jsonl",
                )

    def _tpe_remedy(self) -> str:
        return (
            f"only a copy can restore the plan of an adaptive search: put one back and run "
            f"`ganstudy resume {self.folder.folder}`, or begin anew by `ganstudy run` with --name"
        )

    def _check_begun(self, hashes: dict[str, str]) -> None:
        """Refuse to rebuild the plan where a trial that has begun would not be in it as it was."""
        for trial_id in sorted(names_in(self.folder.folder / "trials")):
            trial = self.folder.trial(trial_id)
            if trial.attempts() and hashes.get(trial_id) not in _recorded_hashes(trial, hashes):
                raise DamagedFile(
                    self.folder.folder / "plan.jsonl",
                    f"it cannot be rebuilt, since study.yaml, or its data, no longer describes "
                    f"the trial {trial_id}: restore study.yaml from a copy, then run "
                    f"`ganstudy resume {self.folder.folder}`",
                )

    def components(self) -> None:
        """Rebuild the description of the study's components."""
        damage = self.damage_of(COMPONENTS, lambda: self.folder.read_json(COMPONENTS))
        if damage is not None:
            self.set_aside(damage, COMPONENTS, "rebuilt from study.yaml")
            self.folder.write_json(COMPONENTS, components(self.spec))

    def provenance(self, force: bool) -> None:
        """Rebuild the provenance and mark it.

        Args:
            force: Whether the user accepts that trials of other code may stand side by side.

        Raises:
            DamagedFile: If trials that were run by unknown code would get more beside them.
        """
        damage = self.damage_of("provenance.json", self._read_provenance)
        if damage is None:
            return
        begun = bool(names_in(self.folder.folder / "trials"))
        if begun and not force and count_pending(self.spec, self.folder, self.say):
            raise DamagedFile(
                damage.path,
                f"restore it from a copy, or run `ganstudy resume {self.folder.folder} --force`, "
                f"which rebuilds it and marks the study as mixed",
                damage.problem,
            )
        rule = fixed(self.spec.judged_by, self.spec.configs, len(self.spec.design.seeds))
        origin = provenance() | {"judgement": rule}
        if begun:
            origin["mixed"] = [UNKNOWN_ORIGIN]
        self.set_aside(damage, "provenance.json", "rebuilt, and marked as such")
        self.folder.write_json("provenance.json", origin)

    def _read_provenance(self) -> None:
        origin = self.folder.read_json("provenance.json")
        if any(key not in origin for key in PROVENANCE_KEYS):
            raise DamagedFile(self.folder.folder / "provenance.json")

    def tracking(self, uri: str | None, default: str) -> None:
        """Write anew where the study is tracked.

        Args:
            uri: What the user gave.
            default: The store beside the study.

        Raises:
            DamagedFile: If the user gave nothing.
        """
        damage = self.damage_of("tracking.json", self._read_tracking)
        if damage is None:
            return
        if uri is None:
            raise DamagedFile(
                damage.path,
                f"run `ganstudy resume {self.folder.folder} --tracking-uri URI` with the store of "
                f"its runs, which is {default} unless another was chosen",
                damage.problem,
            )
        self.set_aside(damage, "tracking.json", "written anew")
        stored = redact(stored_uri(uri, self.folder.folder))
        self.folder.write_json("tracking.json", {"uri": stored})

    def _read_tracking(self) -> None:
        if not isinstance(self.folder.read_json("tracking.json").get("uri"), str):
            raise DamagedFile(self.folder.folder / "tracking.json")

    def derived(self) -> None:
        """Set aside what the end of each call writes anew, where it cannot be read before."""
        again = "written anew by this call"
        present = names_in(self.folder.folder)
        if "protocol.json" in present:
            damage = self.damage_of(
                "protocol.json", lambda: self.folder.read_json("protocol.json")
            )
            if damage is not None:
                self.set_aside(damage, "protocol.json", again)
        sanity = f"`ganstudy sanity {self.folder.folder}` measures it again"
        for name, then in ((REPORTED, again), (CURVES, again), (SANITY, sanity)):
            read = partial(read_table, self.folder.folder / name)
            damage = self.damage_of(name, read) if name in present else None
            if damage is not None:
                self.set_aside(damage, name, then)

    def trials(self) -> None:
        """Set aside damaged records, so that their trials are run again."""
        for trial_id in sorted(names_in(self.folder.folder / "trials")):
            self._trial(self.folder.trial(trial_id))

    def _trial(self, trial: TrialFolder) -> None:
        before = trial.damages()
        trial.latest_whole()
        for name, damage in trial.damages().items():
            if name not in before:
                self.say(f"{damage}: kept in {trial.folder / name}, the trial is run again")
        for name in (FAILURE, STOP):
            try:
                trial.read_reason(name)
            except DamagedFile as damage:
                kept = trial.set_note_aside(name)
                then = "the trial is tried again"
                if name == STOP and self.spec.stopping is not None:
                    trial.stop(self.spec.stopping.name)
                    then = "written anew"
                self.say(f"{damage.path} {damage.problem}: {then}; the damaged file is kept as "
                         f"{kept}")  # fmt: skip


@contextmanager
def driving(folder: StudyFolder) -> Iterator[None]:
    """Keep other drivers out of a study during the block, or longer if they are out already.

    Raises:
        BlockingIOError: If another process drives the study.
    """
    if folder.locked:
        yield
        return
    folder.lock()
    try:
        yield
    finally:
        folder.unlock()


def repair_study(
    spec: StudySpec,
    folder: StudyFolder,
    uri: str | None,
    default_uri: str,
    force: bool,
    say: Callable[[str], object],
) -> None:
    """Check the files that lie in a study's folder itself, and rebuild the damaged ones.

    Args:
        spec: What `study.yaml` says.
        folder: The study, locked.
        uri: The tracking URI that the user gave.
        default_uri: That of the store beside the study.
        force: Whether trials of other code may stand side by side.
        say: Takes one line for each damaged file.

    Raises:
        DamagedFile: If a file cannot be rebuilt.
    """
    repair = Repair(spec, folder, say)
    repair.plan()
    repair.provenance(force)
    repair.tracking(uri, default_uri)
    repair.components()
    repair.derived()


def count_pending(spec: StudySpec, folder: StudyFolder, say: Callable[[str], object]) -> int:
    """Return how many trials are not finished; those of damaged records are not."""
    try:
        return len(pending(spec, folder))
    except DamagedFile:
        with driving(folder):
            Repair(spec, folder, say).trials()
    return len(pending(spec, folder))


def _recorded_hashes(trial: TrialFolder, hashes: dict[str, str]) -> set[str]:
    """Return the result hashes that a trial's attempts recorded, else the one that is planned."""
    found: set[str] = set()
    for attempt in trial.attempts():
        try:
            record = attempt.read()
            if record is not None:
                found.add(TrialSpec.load(attempt.folder / record.files["config"]).result_hash)
        except (DamagedFile, OSError, KeyError):
            continue
    planned = hashes.get(trial.folder.name)
    return found or ({planned} if planned is not None else set())
