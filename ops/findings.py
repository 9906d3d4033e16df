"""What `ekko doctor` and `ekko status` find: each thing in a sentence, and what to do about it."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is; only a problem makes the exit code 1."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        part: what it belongs to: "bootstrap", "topics", "barriers" ...
        text: a sentence that names what and where.
        fix: what to do, where there is something to do.
    """

    level: Level
    part: str
    text: str
    fix: str = ""


def ok(part: str, text: str) -> Finding:
    """Something is as it must be."""
    return Finding(Level.OK, part, text)


def warning(part: str, text: str, fix: str = "") -> Finding:
    """Something works, but somebody should know."""
    return Finding(Level.WARNING, part, text, fix)


def problem(part: str, text: str, fix: str = "") -> Finding:
    """Something does not work, or will not for long."""
    return Finding(Level.PROBLEM, part, text, fix)


def exit_code(findings: Iterable[Finding]) -> int:
    """1 if there is a problem, else 0."""
    return int(any(finding.level is Level.PROBLEM for finding in findings))


def as_text(finding: Finding) -> str:
    """For people: a line, and the fix below it."""
    line = f"{finding.level:8} {finding.part:10} {finding.text}"
    return f"{line}\n{'':20}-> {finding.fix}" if finding.fix else line


def as_json(finding: Finding) -> str:
    """For programs."""
    return json.dumps(asdict(finding))
