"""Rows: medians and ratios; as a table, as lines per target, as JSON."""

from __future__ import annotations

import json
import platform
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Literal

UNITS = {"ns": 1, "us": 1e3, "ms": 1e6}


@dataclass
class Row:
    """One work, ours beside the reference measured just before it. Where both are times and the
    target says how many times faster, `faster` is set: the ratio is the reference over ours."""

    id: str
    work: str
    reference: str
    target: float | None = None
    aim: Literal["<=", ">="] = "<="
    unit: Literal["ns", "msg/s"] = "ns"
    faster: bool = False
    note: str = ""  # the settings of both sides, where they are a choice
    missing: str = ""  # why a reference could not be measured
    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)

    def add(self, ours: float, theirs: float) -> None:
        self.ours.append(ours)
        self.theirs.append(theirs)

    @property
    def ratios(self) -> list[float]:
        pairs = zip(self.ours, self.theirs, strict=True)
        return [theirs / ours if self.faster else ours / theirs for ours, theirs in pairs]

    @property
    def met(self) -> bool:
        if self.target is None or not self.ours:
            return False
        ratio = median(self.ratios)
        return ratio >= self.target if self.aim == ">=" else ratio <= self.target

    @property
    def verdict(self) -> str:
        return "met" if self.met else "not met"

    @property
    def aimed(self) -> str:
        return "" if self.target is None else f"{self.aim} {self.target:g}"


def number(value: float) -> str:
    """Three digits."""
    return f"{value:.0f}" if value >= 99.5 else f"{value:.3g}"


def amount(value: float, unit: str) -> str:
    """Three digits in the unit that suits: 74.2 ns, 1.31 ms, 812 k/s."""
    scales = [(1e6, "M/s"), (1e3, "k/s")] if unit == "msg/s" else [(1e6, "ms"), (1e3, "us")]
    for scale, name in scales:
        if value >= scale:
            return f"{number(value / scale)} {name}"
    return f"{number(value)} {unit}"


def spread(values: list[float]) -> str:
    return f"{number(median(values))} [{number(min(values))}..{number(max(values))}]"


def cells(row: Row) -> list[str]:
    judged = f"{row.aimed} {row.verdict.replace('not', 'NOT')}" if row.aimed else ""
    if not row.ours:
        return [row.work, "-", f"{row.reference}: {row.missing or 'not measured'}", "-", judged]
    ours, theirs = (amount(median(values), row.unit) for values in (row.ours, row.theirs))
    return [row.work, ours, f"{row.reference}: {theirs}", spread(row.ratios), judged]


def table(rows: list[Row]) -> str:
    heads = ["work", "ours", "reference", "ratio, median [min..max]", "target"]
    lines = [heads, *(cells(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(heads))]
    text = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    notes = [f"{row.id}: {row.note}" for row in rows if row.note and row.ours]
    return "\n".join(text + ([""] + notes if notes else []))


def check(rows: list[Row]) -> str:
    """A line per target."""
    lines = []
    for row in rows:
        if row.target is None:
            continue
        if row.ours:
            ours, theirs = (amount(median(v), row.unit) for v in (row.ours, row.theirs))
            told = f"ours {ours}, {row.reference} {theirs}, ratio {spread(row.ratios)}"
        else:
            told = f"{row.reference}: {row.missing or 'not measured'}"
        lines.append(f"{row.verdict}: {row.work}: {told}, target {row.aimed}")
    return "\n".join(lines)


def figures(values: list[float]) -> dict[str, float]:
    return {"median": median(values), "min": min(values), "max": max(values)}


def as_json(row: Row) -> dict[str, Any]:
    told: dict[str, Any] = {"id": row.id, "work": row.work, "unit": row.unit}
    told |= {"repetitions": len(row.ours), "reference_name": row.reference}
    if row.note:
        told["note"] = row.note
    if row.ours:
        told |= {"ours": figures(row.ours), "ours_each": row.ours}
        told |= {"reference": figures(row.theirs), "reference_each": row.theirs}
        told |= {"ratio": figures(row.ratios), "ratio_is": "speed" if row.faster else "quotient"}
    elif row.missing:
        told["missing"] = row.missing
    if row.target is not None:
        told |= {"target": row.target, "target_is": row.aim, "met": row.met}
    return told


def report_json(rows: list[Row], repetitions: int, quick: bool, version: str) -> str:
    machine = platform.uname()
    told = {
        "version": version,
        "python": platform.python_version(),
        "kernel": machine.release,
        "machine": machine.machine,
        "repetitions": repetitions,
        "quick": quick,
        "rows": [as_json(row) for row in rows],
    }
    return json.dumps(told, indent=1)
