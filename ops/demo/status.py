"""What the demo's own processes tell of themselves: small JSON files in the run's folder, replaced as a whole."""

import math
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from ekko.ops.demo.plan import replace_text
from ekko.ops.demo.poison import Phase
from ekko.ops.demo.quality import Quality
from ekko.ops.demo.validation import RegionValidation

TRAINER_FILE = "trainer.json"
SERVER_FILE = "server.json"

StatusType = TypeVar("StatusType", bound=BaseModel)


class Comparison(BaseModel):
    """Live rows against stale ones on the same interactions; None where there are too few."""

    interactions: int = 0
    auc_live: float | None = None
    auc_stale: float | None = None
    log_loss_live: float | None = None
    log_loss_stale: float | None = None

    @staticmethod
    def of(live: Quality, stale: Quality) -> "Comparison":
        """The comparison of two qualities."""
        return Comparison(
            interactions=live.count,
            auc_live=_number(live.auc),
            auc_stale=_number(stale.auc),
            log_loss_live=_number(live.log_loss),
            log_loss_stale=_number(stale.log_loss),
        )


class RegionQuality(BaseModel):
    """Progressive validation in one region: the whole run, what came after the first refresh, and the last while.

    ``auc_by_phase`` holds the AUC with live rows at the end of each phase of a poisoned run.
    """

    run: Comparison
    after_first_refresh: Comparison
    recent: Comparison
    unserved: int
    auc_by_phase: dict[Phase, float | None] = {}

    @staticmethod
    def of(validation: RegionValidation) -> "RegionQuality":
        """What a validation has found so far."""
        return RegionQuality(
            run=Comparison.of(validation.live.run(), validation.stale.run()),
            after_first_refresh=Comparison.of(validation.live_later.run(), validation.stale_later.run()),
            recent=Comparison.of(validation.live.recent(), validation.stale.recent()),
            unserved=validation.unserved,
            auc_by_phase={phase: _number(meter.recent().auc) for phase, meter in validation.phases.items()},
        )


class TrainerStatus(BaseModel):
    """The trainer: where it is, what the log has acknowledged, and how good predictions were.

    ``until`` is the end of the training in seconds since 1970: set at its start, kept by a restarted trainer.
    ``poisoned_at`` is the time of the first poisoned publish, in seconds since 1970, likewise.
    ``position`` counts the interactions learnt from since then, also by trainers before this one.
    """

    until: float = 0.0
    position: int = 0
    behind_s: float = 0.0
    acknowledged_rows: int = 0
    acknowledged_blocks: int = 0
    acknowledged_total: int = 0
    finished: bool = False
    poisoned_at: float | None = None
    regions: dict[str, RegionQuality] = {}


class ServingStatus(BaseModel):
    """The serving loop in one region: rankings made, those that failed, and how long a lookup took."""

    requests: int = 0
    failed: int = 0
    lookup_ms_p50: float | None = None
    lookup_ms_p99: float | None = None


class ServerStatus(BaseModel):
    """The serving loop."""

    regions: dict[str, ServingStatus] = {}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def write_status(path: Path, status: BaseModel) -> None:
    """Replace the file."""
    replace_text(path, status.model_dump_json())


def read_status(path: Path, kind: type[StatusType]) -> StatusType:
    """What the file says; the defaults when it is not there (yet)."""
    try:
        return kind.model_validate_json(path.read_text())
    except (FileNotFoundError, ValidationError):
        return kind()
