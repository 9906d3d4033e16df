"""The monitor: low-rate windows on Faust; the logic is pure."""
