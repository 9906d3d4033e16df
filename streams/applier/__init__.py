"""From lanes to rows: what a replica reads is checked, united and applied."""

from ekko.streams.applier.applier import Applier

__all__ = ["Applier"]
