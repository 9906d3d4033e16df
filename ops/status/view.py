"""What `ekko status` shows: a line a model, a line a model in a region, a line a replica."""

import io
from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from ekko.ops.status.facts import Facts, ModelFacts, RegionFacts
from ekko.ops.status.judge import age_s, living
from ekko.streams.manager.progress import region_progress, replica_state

_WIDTH = 160


def as_text(facts: Facts, now_us: int) -> str:
    """Tables for people; ages as of `now_us`, microseconds since 1970."""
    out = io.StringIO()
    console = Console(file=out, width=_WIDTH)
    for rows in (_models(facts, now_us), _lanes(facts, now_us), _replicas(facts, now_us)):
        listed = list(rows)
        if listed:
            table = Table(*listed[0], box=None)
            for row in listed:
                table.add_row(*map(str, row.values()))
            console.print(table, "")
    return out.getvalue()


def as_data(facts: Facts, now_us: int) -> dict[str, list[dict[str, object]]]:
    """The same for programs."""
    return {
        "models": list(_models(facts, now_us)),
        "regions": list(_lanes(facts, now_us)),
        "replicas": list(_replicas(facts, now_us)),
    }


def _models(facts: Facts, now_us: int) -> Iterator[dict[str, object]]:
    for model in facts.models:
        states = list(model.states.values())
        barrier = model.barrier
        yield {
            "model": model.model.name,
            "shards": model.model.shards,
            "tables": len(model.model.tables),
            "state": barrier.epoch if barrier else 0,
            "barrier age s": round(age_s(barrier.written_us, now_us)) if barrier else "-",
            "verdict": states[-1].verdict.value if states else "-",
            "generation": barrier.generation if barrier else 0,
            "voids": len(barrier.voids) if barrier else 0,
            "source records": sum(bounds.end - bounds.low for bounds in model.source.values()),
        }


def _lanes(facts: Facts, now_us: int) -> Iterator[dict[str, object]]:
    for region in facts.regions:
        for model in facts.models:
            yield {"region": region.region.name, "model": model.model.name, **_lane(region, model, now_us)}


def _lane(region: RegionFacts, model: ModelFacts, now_us: int) -> dict[str, object]:
    if region.failure:
        return {"fan-outs": "unreachable"}
    lanes = region.lanes[model.model.name]
    progress = region_progress(region.members, model.model, region.region.incarnation)
    settled = min((state.settled.epoch for state in lanes.fanout.values()), default=0)
    told = [place for name in living(region, now_us) for place in region.instances[name].halted]
    halted = sorted({place for place in told if place.startswith(f"{model.model.name}/")})
    return {
        "fan-outs": len(living(region, now_us)),
        "halted": " ".join(halted) or "-",
        "lag records": sum(
            max(0, bounds.end - (lanes.fanout[shard].upto if shard in lanes.fanout else bounds.low))
            for shard, bounds in model.source.items()
        ),
        "settled state": settled,
        "pending epochs": max(0, (model.barrier.epoch if model.barrier else 0) - settled),
        "shards with rejections": lanes.rejected,
        "ready": f"{sum(member.ready for member in region.members)}/{len(region.members)}",
        "readable": progress.readable,
        "durable": progress.durable,
    }


def _replicas(facts: Facts, now_us: int) -> Iterator[dict[str, object]]:
    for region in facts.regions:
        for member in sorted(region.members, key=lambda each: each.replica):
            complete = {
                model.model.name: state.complete
                for model in facts.models
                if (state := replica_state(member.models, model.model, region.region.incarnation)) is not None
            }
            yield {
                "region": region.region.name,
                "replica": member.replica,
                "address": member.address,
                "heard s ago": round(age_s(member.written_us, now_us)),
                "ready": "yes" if member.ready else "no",
                "complete": " ".join(f"{name}:{state}" for name, state in complete.items()) or "-",
                "halted": " ".join(sorted(member.halted)) or "-",
            }
