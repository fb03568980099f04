"""A trial's story on the terminal, or as one page that needs no network."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ganstudy.records import Event, TrialStatus
from ganstudy.study_files import read_png
from ganstudy.why import Curve, Difference, Neighbour, Picture, Story, distance, troubles

BLOCKS, PLAIN_BLOCKS = "▁▂▃▄▅▆▇█", "_.-~=+*#"
BROKEN = "x"
"""What stands for a value that is not finite."""
WIDEST = 72
"""Columns of a curve."""
LOG_RATIO = 20.0
"""Largest over smallest value from which on a curve of positive values is drawn in logarithms."""
SHOWN = 6
"""Settings of two arms that are told; the study's YAML tells the rest."""
SENTENCE = ("signal", "value", "limit", "rule")
"""Parts of an evidence that are told as a sentence; the others follow it."""


def number(value: object) -> str:
    """Return a value as a person reads it."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return " ".join(map(str, value)) or "none"
    return str(value)


def tell(story: Story, console: Console) -> None:
    """Print the story, as wide as the console."""
    _say(console, story.identity["trial_id"], style="bold")
    for key, value in facts(story).items():
        _say(console, value, key, indent=12)
    _say(console, verdict(story), style="bold")
    blocks = PLAIN_BLOCKS if console.options.ascii_only else BLOCKS
    for curve in story.curves:
        _heading(console, caption(curve, story.events))
        for line in curve_lines(curve, story.events, curve_width(console), blocks):
            console.print(Text(f"  {line}"), soft_wrap=True)
    for event in story.events:
        _heading(console, headline(event, story.status))
        _say(console, sentence(event.evidence), indent=2)
        _say(console, others(event.evidence), indent=2, style="dim")
    if story.pictures:
        _heading(console, "samples")
        _print_paths(console, story.pictures)
    _heading(console, f"nearest {_wanted(story)} trial")
    _print_neighbour(console, story)


def curve_width(console: Console) -> int:
    """Return the columns of a curve."""
    return max(16, min(WIDEST, console.width - 4))


def _say(console: Console, text: str, label: str = "", indent: int = 0, style: str = "") -> None:
    """Print a text behind a label, its lines beginning below one another; no text, no line."""
    if not text:
        return
    for line in Text(text, style=style).wrap(console, max(16, console.width - indent)):
        line.rstrip()
        console.print(Text.assemble((label.ljust(indent), "dim"), line), soft_wrap=True)
        label = ""


def _heading(console: Console, text: str) -> None:
    console.print()
    _say(console, text, style="bold")


def facts(story: Story) -> dict[str, str]:
    """Return who the trial is and how it stands."""
    identity, result = story.identity, story.result
    params = ", ".join(f"{key} {number(value)}" for key, value in story.params.items())
    told = {
        "arm": identity["arm"],
        "config": f"{identity['config_id']}, seed {identity['seed']}",
        "parameters": params or "none swept: the arm's own settings",
        "status": f"{story.status}: {story.reason}" if story.reason else str(story.status),
        "outcome": _rule(story),
        "error": story.error if story.error != story.reason else "",
        "trained": _trained(story) if result.started_at == result.started_at else "",
    }
    return {key: value for key, value in told.items() if value}


def _rule(story: Story) -> str:
    """Return whether the trial failed by the comparison rule, nothing where it has not ended."""
    if story.failed is None:
        ended = story.status.finished
        return "not counted: its end is no outcome of its arm" if ended else ""
    return f"{'failed' if story.failed else 'did not fail'}, by the study's comparison rule"


def _trained(story: Story) -> str:
    of = f" of {story.budget}" if story.budget is not None else ""
    return f"{story.result.discriminator_updates}{of} discriminator updates"


def verdict(story: Story) -> str:
    """Return in one sentence what happened."""
    found = troubles(story.events)
    if found:
        first = min(found, key=lambda event: event.onset)
        kinds = dict.fromkeys(event.kind for event in found)
        after = (
            ", then " + ", ".join(k for k in kinds if k != first.kind) if len(kinds) > 1 else ""
        )
        return f"{first.kind} from update {first.onset} on{after}."
    match story.status:
        case TrialStatus.COMPLETED:
            return "Nothing happened: it completed without an event."
        case TrialStatus.FAILED:
            return "The program failed, not the training: no event was detected before."
        case TrialStatus.PENDING:
            return "It has not begun."
        case TrialStatus.DIVERGED | TrialStatus.STOPPED:
            return "It ended early, and no event was recorded."
    return "Nothing has happened so far."


def caption(curve: Curve, events: Sequence[Event]) -> str:
    """Return what a curve is of, with its first, best and last value, and what its marks mean."""
    better = "lower" if curve.minimize else "higher"
    told = [f"{number(curve.values[0])} at {curve.updates[0]}"]
    if curve.best is not None:
        told.append(f"best {number(curve.values[curve.best])} at {curve.updates[curve.best]}")
    if len(curve.values) > 1:
        told.append(f"last {number(curve.values[-1])} at {curve.updates[-1]}")
    scale = ", drawn in logarithms" if logarithmic(curve) else ""
    marks = "; below: ^ onset, ! detection of an event" if events else ""
    return f"{curve.name} ({better} is better{scale}): {', '.join(told)}{marks}"


def logarithmic(curve: Curve) -> bool:
    """Whether a curve is drawn in logarithms."""
    finite = [value for value in curve.values if math.isfinite(value)]
    return bool(finite) and min(finite) > 0 and max(finite) > LOG_RATIO * min(finite)


def curve_lines(curve: Curve, events: Sequence[Event], width: int, blocks: str) -> list[str]:
    """Return a curve in blocks, and below it where events began and where they were detected.

    Each column shows the newest value at its update, the columns being equally far apart.
    """
    end = max([curve.updates[-1], 1, *(event.detected for event in events)])
    heights = _heights(curve, blocks)
    line = ""
    for column in range(width):
        upto = end * column / (width - 1)
        passed = [i for i, at in enumerate(curve.updates) if at <= upto]
        line += heights[passed[-1]] if passed else " "
    marks = [" "] * width
    for mark, ats in (("!", [e.detected for e in events]), ("^", [e.onset for e in events])):
        for at in ats:
            marks[round(at / end * (width - 1))] = mark
    if not events:
        return [line]
    return [line, "".join(marks).rstrip()]


def _heights(curve: Curve, blocks: str) -> list[str]:
    log = logarithmic(curve)
    values = [math.log(v) if log and math.isfinite(v) else v for v in curve.values]
    finite = [value for value in values if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    unit = (len(blocks) - 1) / (high - low) if high > low else 0.0
    return [blocks[round((v - low) * unit)] if math.isfinite(v) else BROKEN for v in values]


def headline(event: Event, status: TrialStatus) -> str:
    """Return kind, times and severity of an event."""
    lasting = "lasts" if not status.finished else "lasted to the end"
    ended = lasting if event.ended is None else f"ended {event.ended}"
    return (
        f"{event.kind}: onset {event.onset}, detected {event.detected}, {ended}, "
        f"severity {event.severity:.2f}"
    )


def sentence(evidence: Mapping[str, Any]) -> str:
    """Return the signal, its value and its limit, and the rule."""
    told = ""
    if "signal" in evidence and "value" in evidence:
        told = f"{evidence['signal']} = {number(evidence['value'])}"
    if "limit" in evidence:
        told += f" against its limit {number(evidence['limit'])}"
    return ": ".join(part for part in (told, str(evidence.get("rule", ""))) if part)


def others(evidence: Mapping[str, Any]) -> str:
    """Return what else an evidence holds."""
    told = {*SENTENCE, evidence.get("signal")}
    return ", ".join(f"{k} {number(v)}" for k, v in evidence.items() if k not in told)


def _print_paths(console: Console, pictures: Sequence[Picture]) -> None:
    wide = max((len(picture.what) for picture in pictures), default=0)
    for what, path in pictures:
        gone = "" if read_png(path) else " (no picture is there)"
        # A path that is broken into lines cannot be copied.
        console.print(Text(f"  {what:<{wide}}  {path}{gone}"), soft_wrap=True)


def _wanted(story: Story) -> str:
    return "failed" if story.healthy else "healthy"


def _print_neighbour(console: Console, story: Story) -> None:
    for line in neighbour_lines(story):
        _say(console, line, indent=2)
    if story.neighbour is None:
        return
    if len(story.neighbour.differences) > 1:
        table = Table("parameter", "here", "there", "apart", box=None, pad_edge=False)
        for row in difference_rows(story.neighbour.differences):
            table.add_row(*map(Text, row))
        console.print(Padding(table, (0, 0, 0, 2)))
    _print_paths(console, story.neighbour.pictures)


def neighbour_lines(story: Story) -> list[str]:
    """Return in sentences which trial is nearest, how it went, and what differs first."""
    neighbour, identity = story.neighbour, story.identity
    if neighbour is None:
        return [f"This study has no {_wanted(story)} trial so far."]
    same = neighbour.identity["arm"] == identity["arm"]
    where = "of the same arm" if same else "of another arm (this one has none)"
    lines = [
        f"{neighbour.identity['trial_id']} {where}, at a distance of "
        f"{distance(neighbour.differences):.2g}: {_outcome(story, neighbour)}"
    ]
    if neighbour.settings:
        lines.append(f"the arms differ in {_settings(neighbour.settings)}")
    if neighbour.differences:
        first = neighbour.differences[0]
        lines.append(
            f"first difference (the swept parameter that is furthest apart in its range): "
            f"{first.key}, {_value(first.here)} here, {_value(first.there)} there"
        )
    else:
        seeds = identity["seed"], neighbour.identity["seed"]
        only = (
            "" if seeds[0] == seeds[1] else f": the seed does, {seeds[0]} here, {seeds[1]} there"
        )
        lines.append(f"no swept parameter differs{only}")
    return lines


def _outcome(story: Story, neighbour: Neighbour) -> str:
    record = neighbour.record
    kinds = ", ".join(dict.fromkeys(e.kind for e in troubles(record.events)))
    told = f"{record.result.status}{f' with {kinds}' if kinds else ''}"
    best = story.checkpoint == "best"
    at = record.result.best_at if best else record.result.discriminator_updates
    score = record.values_at(at).get(story.primary)
    return told if score is None else f"{told}, {story.checkpoint} {story.primary} {number(score)}"


def _value(value: object) -> str:
    return "not swept" if value is None else number(value)


def _settings(settings: Sequence[Difference]) -> str:
    told = [f"{d.key} ({_setting(d.here)} here, {_setting(d.there)} there)" for d in settings]
    more = f" and {len(told) - SHOWN} more" if len(told) > SHOWN else ""
    return ", ".join(told[:SHOWN]) + more


def _setting(value: object) -> str:
    return "unset" if value is None else number(value)


def difference_rows(differences: Sequence[Difference]) -> list[tuple[str, str, str, str]]:
    """Return key, both values, and how far apart they are."""
    return [(d.key, _value(d.here), _value(d.there), f"{d.size:.2f}") for d in differences]


def page(story: Story) -> str:
    """Return the story as an HTML page that holds its pictures."""
    here = jinja2.Environment(
        loader=jinja2.PackageLoader("ganstudy", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return here.get_template("why.html.j2").render(
        story=story,
        facts=facts(story),
        verdict=verdict(story),
        curves=[
            (caption(curve, story.events), curve_lines(curve, story.events, WIDEST, BLOCKS))
            for curve in story.curves
        ],
        events=[
            (headline(e, story.status), sentence(e.evidence), others(e.evidence))
            for e in story.events
        ],
        pictures=_inlined(story.pictures),
        wanted=_wanted(story),
        neighbour=neighbour_lines(story),
        differences=difference_rows(story.neighbour.differences) if story.neighbour else [],
        neighbour_pictures=_inlined(story.neighbour.pictures) if story.neighbour else [],
    )


def _inlined(pictures: Sequence[Picture]) -> list[tuple[str, str]]:
    """Return what each picture is and its content as a data URI, without what is no PNG file."""
    contents = [(what, read_png(path)) for what, path in pictures]
    return [(what, _uri(content)) for what, content in contents if content]


def _uri(content: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"
