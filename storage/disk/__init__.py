"""Rows on disk: one atomic unit a flush, recovery, snapshots."""
