"""The result of a run in words."""

from ekko.ops.demo.interactions import Interactions
from ekko.ops.demo.summary import DemoSummary


def description(interactions: Interactions) -> str:
    """What data this is, its terms, and what was left out."""
    left_out = ", ".join(f"{reason} {count}x" for reason, count in interactions.dropped.items())
    return (
        f"data: {interactions.origin}, {len(interactions):,} interactions\n  {interactions.notice}"
        + f"\n  left out: {left_out}" * bool(left_out)
    )


def conclusion(summary: DemoSummary) -> str:
    """A few lines for people."""
    every = f"{summary.stale_refresh_s:g} s (same interactions, same scorer)"
    median, tail = _number(summary.update_latency_ms_p50), _number(summary.update_latency_ms_p99)
    lines = [
        f"{summary.interactions:,} interactions, {summary.rows_published:,} row updates of {summary.keys:,} rows",
        f"AUC {_number(summary.auc_live)} with live rows, {_number(summary.auc_stale)} with rows of every {every}",
        f"publish to readable in the slower region: p50 {median} ms, p99 {tail} ms",
    ]
    later = summary.after_first_refresh
    if later.auc_live is not None:
        live, stale = _number(later.auc_live), _number(later.auc_stale)
        lines.insert(2, f"  after their first refresh, so without the untrained start: {live} and {stale}")
    if summary.poisoned:
        lines += _poisoning(summary)
    if summary.restarts:
        lines.append("restarted: " + ", ".join(f"{name} {count}x" for name, count in summary.restarts.items()))
    if summary.bit_identical:
        earlier = "" if summary.middle_state is None else f", as of state {summary.middle_state}"
        lines.append(
            f"both regions equal the sum of the source log bit for bit: now, as of state {summary.last_state}{earlier}"
        )
    else:
        lines += ["NOT identical:", *(f"  {problem}" for problem in summary.problems)]
    return "\n".join(lines)


def _poisoning(summary: DemoSummary) -> list[str]:
    aucs = (summary.auc_before_poison, summary.auc_poisoned, summary.auc_recovered)
    before, poisoned, recovered = map(_number, aucs)
    found = "never found out" if summary.detection_s is None else f"called corrupt after {summary.detection_s:.1f} s"
    back = "not rolled back" if summary.rolled_back_to is None else f"rolled back to state {summary.rolled_back_to}"
    return [
        f"the trainer went bad (labels flipped): {found}, {back}",
        f"  AUC with live rows {before} before, {poisoned} poisoned, {recovered} after the rollback",
    ]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
