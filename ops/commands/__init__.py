"""One file a command of `ekko`; `ekko.ops.cli` finds them by name."""
