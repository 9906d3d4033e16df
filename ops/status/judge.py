"""What is wrong, by the facts: pure functions of them and the time."""

from collections.abc import Iterable, Iterator
from itertools import pairwise
from statistics import median

from ekko.ops.findings import Finding, ok, problem, warning
from ekko.ops.status.facts import Facts, LaneFacts, ModelFacts, RegionFacts
from ekko.ops.status.signals import last_verdict_us
from ekko.schemas.epochs import Verdict
from ekko.schemas.replicas import Member
from ekko.streams.manager.progress import region_progress, replica_state
from ekko.streams.manager.silence import is_overdue

PARTS = ("models", "regions", "barriers", "states", "monitor", "fanout", "stores")
SILENT_S = 10.0
"""Processes announce themselves every second; what was not heard for so long is gone or hangs."""
FOLLOWS_S = 10.0
"""A barrier is forwarded at once and applied at once: what lags longer behind it stands still."""
MONITOR_SILENT_S = 60.0
INTERVALS = 3.0
"""So many usual intervals without a barrier, and the manager is gone; a standby takes over after one and a half."""
SETTLES_S = 60.0
RECENT = 10

HALTED = "remove the cause (upgrade the process, restore what is missing), then start the process again"
NO_STORE = "start one: `ekko store --region REGION`; see the log of the one that was there"
NO_FANOUT = "start one: `ekko fanout --region REGION`; stores get nothing meanwhile, but nothing is lost"


def judge(facts: Facts, now_us: int, epoch_interval_s: float) -> Iterator[Finding]:
    """Everything that is worth a line; times are microseconds since 1970, the interval is that of the settings."""
    if not facts.models:
        yield warning("models", "no model is declared", "`ekko model apply FILE`")
    if not facts.regions:
        yield warning("models", "no region is declared", "`ekko model apply FILE`")
    for model in facts.models:
        yield from _barriers(model, now_us, epoch_interval_s)
        yield from overdue(model, facts.regions, now_us)
        yield from _states(model)
        yield from _monitor(model, facts, now_us)
    for region in facts.regions:
        if region.failure:
            yield problem("regions", f"region {region.region.name}: {region.failure}", "`ekko doctor` tells more")
            continue
        yield from _instances(region, now_us)
        yield from halted(region, now_us)
        for model in facts.models:
            yield from _fanout(model, region, region.lanes[model.model.name], now_us)
            yield from _stores(model, region, now_us)
        yield from _members(region, now_us)


def usual_interval_s(model: ModelFacts, otherwise: float) -> float:
    """Seconds between the model's latest barriers."""
    times = [state.written_us for state in model.states.values()][-RECENT:]
    gaps = [(later - earlier) / 1e6 for earlier, later in pairwise(times)]
    return median(gaps) if gaps else otherwise


def age_s(written_us: int, now_us: int) -> float:
    """Seconds since then; 0 for what a faster clock dates in the future."""
    return max(0.0, (now_us - written_us) / 1e6)


def living(region: RegionFacts, now_us: int) -> list[str]:
    """Fan-out instances heard lately."""
    return sorted(name for name, each in region.instances.items() if age_s(each.seen_us, now_us) <= SILENT_S)


def _barriers(model: ModelFacts, now_us: int, epoch_interval_s: float) -> Iterator[Finding]:
    name = model.model.name
    if model.barrier is None:
        yield problem("barriers", f"model {name}: no barrier yet", "start `ekko manager`")
        return
    age, usual = age_s(model.barrier.written_us, now_us), usual_interval_s(model, epoch_interval_s)
    text = f"model {name}: last barrier {age:.0f} s ago, usually one every {usual:.0f} s"
    if age > max(INTERVALS * usual, SILENT_S):
        yield problem(
            "barriers", text, "start `ekko manager`, or look into its log: no new state to go back to is made"
        )
    else:
        yield ok("barriers", text)
    if model.barrier.denied:
        yield ok("models", f"model {name}: blocked trainers: {', '.join(model.barrier.denied)}")


def overdue(model: ModelFacts, regions: Iterable[RegionFacts], now_us: int) -> Iterator[Finding]:
    """No barrier for so long that takeovers are in danger."""
    name, barrier = model.model.name, model.barrier
    lanes = [region.lanes[name].retention_s for region in regions if name in region.lanes]
    shortest = min([model.retention_s, *lanes])
    if barrier is not None and is_overdue(age_s(barrier.written_us, now_us), shortest):
        yield problem(
            "barriers",
            f"model {name}: no barrier for more than a quarter of the {shortest:.0f} s for which its log is kept",
            "start `ekko manager` now: without barriers nothing settles, and a fan-out that is killed cannot go on",
        )


def _states(model: ModelFacts) -> Iterator[Finding]:
    name, states = model.model.name, list(model.states.values())
    if model.barrier is not None and model.barrier.served is not None:
        yield problem(
            "states",
            f"model {name}: readers get the pinned state {model.barrier.served} in place of live rows",
            f"mend the trainer, then `ekko rollback {name}` and `ekko pin clear {name}`; the audit trail says why",
        )
    # Suspects stay so until the monitor says that the model is well; newer states are candidates until its next word,
    # or healthy where their probation is shorter than that.
    suspects = [state for state in states if state.verdict is Verdict.SUSPECT]
    corrupt = [state for state in states[-1:] if state.verdict is Verdict.CORRUPT]
    for newest in (corrupt or suspects)[-1:]:
        grave = problem if newest.verdict is Verdict.CORRUPT else warning
        yield grave(
            "states", f"model {name}: state {newest.epoch} is {newest.verdict}: {newest.reason}", _rollback(name)
        )
    kept = [state for state in states if state.verdict is not Verdict.WITHDRAWN]
    if len(kept) > RECENT and not any(state.verdict is Verdict.HEALTHY for state in kept):
        yield warning("states", f"model {name}: none of {len(kept)} states is healthy yet", f"`ekko states {name}`")


def _rollback(name: str) -> str:
    return f"if the model is bad: `ekko states {name}` lists those to go back to, `ekko rollback {name}` goes back"


def _monitor(model: ModelFacts, facts: Facts, now_us: int) -> Iterator[Finding]:
    name = model.model.name
    share, verdict_us = facts.shares.get(name), last_verdict_us(facts.heard, name)
    heard_us = max(verdict_us, share.written_us if share is not None else 0)
    fix = "start `ekko monitor`; until then fan-outs score by old shares, and nothing judges health"
    if not heard_us:
        yield warning("monitor", f"model {name}: no monitor has been heard", fix)
    elif (age := age_s(heard_us, now_us)) > MONITOR_SILENT_S:
        yield problem("monitor", f"model {name}: the monitor has said nothing for {age:.0f} s", fix)


def _instances(region: RegionFacts, now_us: int) -> Iterator[Finding]:
    name, alive = region.region.name, living(region, now_us)
    if not alive:
        last = max((each.seen_us for each in region.instances.values()), default=0)
        seen = f", the last one {age_s(last, now_us):.0f} s ago" if last else ""
        yield problem("fanout", f"region {name}: no fan-out is heard{seen}", NO_FANOUT.replace("REGION", name))


def _fanout(model: ModelFacts, region: RegionFacts, lanes: LaneFacts, now_us: int) -> Iterator[Finding]:
    where = f"region {region.region.name}, model {model.model.name}"
    newest = max(model.states, default=0)
    if newest and age_s(model.states[newest].written_us, now_us) > FOLLOWS_S:
        offsets = model.states[newest].offsets
        behind = [shard for shard, offset in enumerate(offsets) if _upto(lanes, shard) <= offset]
        if behind:
            yield problem(
                "fanout",
                f"{where}: shard(s) {_list(behind)} not read up to state {newest}",
                "look into the fan-out's log: a shard that halts says why",
            )
    lost = [shard for shard, state in lanes.fanout.items() if state.settled.offset < model.source[shard].low]
    if lost:
        yield problem(
            "fanout",
            f"{where}: shard(s) {_list(lost)} are not settled, but the source log no longer reaches back so far",
            "raise retention.ms of the source, give the region more bandwidth: now a killed fan-out cannot go on",
        )
    settled = min((state.settled.epoch for state in lanes.fanout.values()), default=0)
    waiting = model.states.get(settled + 1)
    if waiting is not None and age_s(waiting.written_us, now_us) > SETTLES_S:
        age = age_s(waiting.written_us, now_us)
        yield warning(
            "fanout",
            f"{where}: rows of epoch {settled} and later are pending since {age:.0f} s",
            "the region's bandwidth budget is too small for what is learnt (bandwidth_bytes_per_s)",
        )


def _stores(model: ModelFacts, region: RegionFacts, now_us: int) -> Iterator[Finding]:
    name, where = model.model.name, region.region.name
    heard = [member for member in region.members if age_s(member.written_us, now_us) <= SILENT_S]
    progress = region_progress(heard, model.model, region.region.incarnation)
    if progress.missing:
        text = f"region {where}, model {name}: shard(s) {_list(progress.missing)} are held by no replica that is heard"
        yield problem("stores", text, NO_STORE.replace("REGION", where))
    sent = min((state.settled.epoch for state in region.lanes[name].fanout.values()), default=0)
    state = model.states.get(sent)
    if state is None or age_s(state.written_us, now_us) <= FOLLOWS_S:
        return
    for member in heard:
        vector = replica_state(member.models, model.model, region.region.incarnation)
        if vector is not None and vector.complete < sent - 1:  # the last one may be on its way
            yield problem(
                "stores",
                f"region {where}, model {name}: replica {member.replica} is complete at state {vector.complete}, "
                f"though all up to state {sent} was sent",
                f"look at {member.address}/health",
            )


def _members(region: RegionFacts, now_us: int) -> Iterator[Finding]:
    for member in region.members:
        who = f"region {region.region.name}: replica {member.replica} ({member.address})"
        yield from _member(member, who, age_s(member.written_us, now_us))


def _member(member: Member, who: str, age: float) -> Iterator[Finding]:
    if age > SILENT_S:
        fix = "start it again, or look into its log; one that is asked to end says good-bye and is not missed"
        yield problem("stores", f"{who} was last heard {age:.0f} s ago", fix)
    elif not member.ready:
        yield problem("stores", f"{who} is not ready", f"it is catching up; {member.address}/ready says with what")


def halted(region: RegionFacts, now_us: int) -> Iterator[Finding]:
    """Shards that stand still until a person acts, at fan-outs and stores that live."""
    where = f"region {region.region.name}"
    for name in living(region, now_us):
        for place, reason in sorted(region.instances[name].halted.items()):
            yield problem("fanout", f"{where}: fan-out {name}: {place} stands still: {reason}", HALTED)
    for member in region.members:
        for place, reason in sorted(member.halted.items()):
            who = f"{where}: replica {member.replica} ({member.address})"
            yield problem("stores", f"{who}: {place} stands still: {reason}", HALTED)


def _upto(lanes: LaneFacts, shard: int) -> int:
    state = lanes.fanout.get(shard)
    return -1 if state is None else state.upto


def _list(shards: list[int] | tuple[int, ...]) -> str:
    return ",".join(map(str, shards))
