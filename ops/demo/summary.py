"""The result of a run: what the last line of output says."""

from pydantic import BaseModel

from ekko.ops.demo.incident import Incident
from ekko.ops.demo.plan import DemoPlan
from ekko.ops.demo.poison import Phase
from ekko.ops.demo.status import Comparison, RegionQuality, ServerStatus, ServingStatus, TrainerStatus
from ekko.ops.demo.verify import Verification
from ekko.storage.serving.served import UpdateLatency


class RegionSummary(BaseModel):
    """One region: how old its rows were, how good its predictions, how fast its reads."""

    update_latency: UpdateLatency
    quality: RegionQuality
    serving: ServingStatus
    rejected: int


class DemoSummary(BaseModel):
    """One run.

    Latencies are of the slower region, in milliseconds, publish call to readable, every block of both lanes since the
    region's store last started. AUCs are means over the regions; ``after_first_refresh`` leaves out the time before the
    stale copy was first refreshed, when it held an untrained model.

    Of a poisoned run: ``detection_s`` runs from the first poisoned publish to the verdict 'corrupt', and the three AUCs
    are of live rows, of the last 5,000 interactions of each phase (or all, if there are less).
    """

    bit_identical: bool
    rows_published: int
    update_latency_ms_p50: float | None
    update_latency_ms_p99: float | None
    auc_live: float | None
    auc_stale: float | None
    after_first_refresh: Comparison
    interactions: int
    interactions_a_second: float
    behind_s: float
    dataset: str
    seconds: float
    stale_refresh_s: float
    blocks_published: int
    keys: int
    last_state: int
    middle_state: int | None
    rollbacks: int
    poisoned: bool
    detection_s: float | None
    rolled_back_to: int | None
    auc_before_poison: float | None
    auc_poisoned: float | None
    auc_recovered: float | None
    restarts: dict[str, int]
    problems: list[str]
    regions: dict[str, RegionSummary]

    @property
    def sound(self) -> bool:
        """Whether everything went as it must: equal bits, and after a poisoning a rollback that helped."""
        if not (self.bit_identical and self.interactions):
            return False
        if not self.poisoned:
            return True
        healed = (self.auc_recovered or 0.0) > (self.auc_poisoned or 0.0)
        return self.rolled_back_to is not None and healed


def _slowest(latencies: list[float | None]) -> float | None:
    measured = [latency for latency in latencies if latency is not None]
    return max(measured) if len(measured) == len(latencies) else None


def mean_comparison(comparisons: list[Comparison]) -> Comparison:
    """Means over regions; None where a region has no value."""

    def mean(name: str) -> float | None:
        values = [getattr(comparison, name) for comparison in comparisons]
        return None if not values or None in values else sum(values) / len(values)

    return Comparison(
        interactions=min((comparison.interactions for comparison in comparisons), default=0),
        auc_live=mean("auc_live"),
        auc_stale=mean("auc_stale"),
        log_loss_live=mean("log_loss_live"),
        log_loss_stale=mean("log_loss_stale"),
    )


def _phase_auc(trainer: TrainerStatus, phase: Phase) -> float | None:
    """Mean over regions of a phase's AUC; None in a run without poison, or where a region has no value."""
    values = [quality.auc_by_phase.get(phase) for quality in trainer.regions.values()]
    found = [value for value in values if value is not None]
    return sum(found) / len(found) if found and len(found) == len(values) and trainer.poisoned_at else None


def _detection_s(trainer: TrainerStatus, incident: Incident) -> float | None:
    began, corrupt = trainer.poisoned_at, incident.corrupt_at_s
    return None if began is None or corrupt is None else corrupt - began


def _region(
    region: str, latency: UpdateLatency, verification: Verification, trainer: TrainerStatus, server: ServerStatus
) -> RegionSummary:
    return RegionSummary(
        update_latency=latency,
        quality=trainer.regions[region],
        serving=server.regions.get(region, ServingStatus()),
        rejected=verification.rejected[region],
    )


def summarise(
    verification: Verification,
    trainer: TrainerStatus,
    server: ServerStatus,
    latencies: dict[str, UpdateLatency],
    *,
    incident: Incident,
    plan: DemoPlan,
    dataset: str,
    restarts: dict[str, int],
) -> DemoSummary:
    """Put together what was measured and checked."""
    regions = {region: _region(region, latency, verification, trainer, server) for region, latency in latencies.items()}
    run = mean_comparison([each.quality.run for each in regions.values()])
    all_blocks = [latency.all for latency in latencies.values()]
    return DemoSummary(
        bit_identical=verification.bit_identical,
        rows_published=verification.published.rows,
        update_latency_ms_p50=_slowest([latency.p50 for latency in all_blocks]),
        update_latency_ms_p99=_slowest([latency.p99 for latency in all_blocks]),
        auc_live=run.auc_live,
        auc_stale=run.auc_stale,
        after_first_refresh=mean_comparison([each.quality.after_first_refresh for each in regions.values()]),
        interactions=trainer.position,
        interactions_a_second=plan.rate,
        behind_s=trainer.behind_s,
        dataset=dataset,
        seconds=plan.seconds,
        stale_refresh_s=plan.refresh_s,
        blocks_published=verification.published.blocks,
        keys=verification.keys,
        last_state=verification.last_state,
        middle_state=verification.middle_state,
        rollbacks=verification.rollbacks,
        poisoned=trainer.poisoned_at is not None,
        detection_s=_detection_s(trainer, incident),
        rolled_back_to=incident.rolled_back_to,
        auc_before_poison=_phase_auc(trainer, Phase.BEFORE),
        auc_poisoned=_phase_auc(trainer, Phase.POISONED),
        auc_recovered=_phase_auc(trainer, Phase.RECOVERED),
        restarts={name: count for name, count in restarts.items() if count},
        problems=verification.problems,
        regions=regions,
    )
