"""The result of a run in words."""

from ekko.ops.demo.summary import DemoSummary


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


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
