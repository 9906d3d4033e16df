"""What `ekko store check` prints of a store that passed."""

from ekko.storage.disk.checking import StoreReport


def describe(report: StoreReport) -> str:
    """A few lines a store: where it stands, then each table with its rows, checksum and journals."""
    state = report.state
    where = f"complete at state {state.complete}, can undo from state {state.bound}, voids {len(state.voids)}"
    lines = [f"{report.folder}: model {state.model}@{state.incarnation}, shards {len(state.shards)}, {where}"]
    for table in report.tables:
        labels = ", ".join(f"{label}: {count}" for label, count in sorted(table.journals.items()) if count)
        lines.append(f"  table {table.name}: {table.rows} rows x {table.dim}, checksum {table.checksum:016x}")
        lines.append(f"    journal entries by epoch: {labels or 'none'}")
    return "\n".join([*lines, "  everything is as the last flush left it"])
