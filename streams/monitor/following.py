"""Which models' signals this process is given, and up to where it has heard them (pure)."""

from collections.abc import Collection


class Following:
    """Keeps every model's signals in one piece: none is left out, none is heard twice.

    The group gives partitions to one monitor and to another, and places that were never committed begin at the end. So
    a model that is new here, and one of which signals were left out, has to be read back first.

    Args:
        models: those that may be given.
    """

    def __init__(self, models: Collection[str]) -> None:
        self._models = tuple(models)
        self._next: dict[str, int] = {}

    def __contains__(self, model: str) -> bool:
        return model in self._next

    def keep(self, given: Collection[str]) -> list[str]:
        """Forget models that are not `given` any more; returns those."""
        gone = [model for model in self._next if model not in given]
        for model in gone:
            del self._next[model]
        return gone

    def missing(self, given: Collection[str]) -> list[str]:
        """Models that are given and have to be read back."""
        return [model for model in self._models if model in given and model not in self._next]

    def begin(self, model: str, end: int) -> None:
        """The model's signals are heard up to before offset `end`."""
        self._next[model] = end

    def is_next(self, model: str, offset: int) -> bool:
        """Whether the signal at `offset`, which came now, is to be heard; one that leaves others out is not."""
        expected = self._next.get(model)
        if expected is None or offset < expected:
            return False
        if offset > expected:
            del self._next[model]
            return False
        self._next[model] = offset + 1
        return True
