"""What `ekko states` shows."""

import io
import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from ekko.ops.announcements import newest
from ekko.schemas import topics
from ekko.schemas.codec import Codec
from ekko.schemas.declarations import ModelDeclaration, RegionDeclaration
from ekko.schemas.epochs import ModelState
from ekko.schemas.errors import EkkoError, StateUnavailable
from ekko.schemas.replicas import Member
from ekko.streams.catalogue import Catalogue
from ekko.streams.log import Cluster, read_all
from ekko.streams.manager.history import read_control, read_states
from ekko.streams.manager.progress import RegionProgress, region_progress

_WIDTH = 160


@dataclass(frozen=True, slots=True)
class Overview:
    """A model's states, newest last, and how far each region has come; None for a region that does not answer.

    `served` is the pinned state that readers get in place of the live rows; None for the live ones.
    """

    states: list[ModelState]
    served: int | None
    regions: dict[str, RegionProgress | None]

    def shown(self, last: int) -> list[ModelState]:
        """The pinned state, however old, and the newest `last`."""
        return [state for state in self.states[:-last] if state.pinned] + self.states[-last:]

    def table(self, last: int, now_us: int) -> str:
        """The states `shown` for people; ages as of `now_us`, microseconds since 1970."""
        table = Table("state", "generation", "verdict", "age", "offsets", *self.regions, "reason", box=None)
        for state in self.shown(last):
            table.add_row(
                str(state.epoch),
                str(state.generation),
                state.verdict + self._pin(state),
                _age(now_us - state.written_us),
                " ".join(map(str, state.offsets)),
                *(_completeness(progress, state.epoch) for progress in self.regions.values()),
                state.reason,
            )
        out = io.StringIO()
        Console(file=out, width=_WIDTH).print(table if self.states else "no states yet: is `ekko manager` running?")
        return out.getvalue()

    def _pin(self, state: ModelState) -> str:
        if state.epoch == self.served:
            return " (pinned, served)"
        return " (pinned)" if state.pinned else ""

    def json_lines(self, last: int) -> str:
        """The states `shown` for programs."""
        lines = [
            {
                "state": state.epoch,
                "generation": state.generation,
                "verdict": state.verdict,
                "pinned": state.pinned,
                "served": state.epoch == self.served,
                "reason": state.reason,
                "written_us": state.written_us,
                "offsets": state.offsets,
                "regions": {name: _completeness(progress, state.epoch) for name, progress in self.regions.items()},
            }
            for state in self.shown(last)
        ]
        return "".join(json.dumps(line) + "\n" for line in lines)


def read(central: Cluster, model: str, connect: Callable[[RegionDeclaration], Cluster]) -> Overview:
    """Read a model's states and its regions' announcements as of now.

    Raises:
        ConfigurationError: no such model.
        ConnectionFailed: the central cluster does not answer (a region that does not is shown as such).
    """
    catalogue = Catalogue(central)
    catalogue.refresh()
    declaration = catalogue.model(model)
    states = read_states(central, catalogue.codec, declaration)
    barrier = read_control(central, catalogue.codec, declaration)
    regions = {
        name: _progress(connect, region, declaration, catalogue.codec) for name, region in catalogue.regions.items()
    }
    catalogue.close()
    return Overview(list(states.values()), None if barrier is None else barrier.served, regions)


def require_state(cluster: Cluster, model: str, state: int) -> None:
    """Look whether a state is there, by what a region's cluster knows too.

    Raises:
        StateUnavailable: there is no such state yet.
        ConfigurationError: no such model.
    """
    with closing(Catalogue(cluster)) as catalogue:
        catalogue.refresh()
        barrier = read_control(cluster, catalogue.codec, catalogue.model(model))
    last = 0 if barrier is None else barrier.epoch
    if state > last:
        raise StateUnavailable(
            f"state {state} of model {model} does not exist: the last one is {last}", hint=f"see `ekko states {model}`"
        )


def _progress(
    connect: Callable[[RegionDeclaration], Cluster], region: RegionDeclaration, model: ModelDeclaration, codec: Codec
) -> RegionProgress | None:
    try:
        records = read_all(connect(region), topics.members(region.name))
    except (EkkoError, TimeoutError):
        return None
    return region_progress(newest(codec, records, Member), model, region.incarnation)


def _completeness(progress: RegionProgress | None, state: int) -> str:
    if progress is None:
        return "unreachable"
    if progress.missing:
        return f"no replica of shards {','.join(map(str, progress.missing))}"
    if progress.durable >= state:
        return "durable"
    return "readable" if progress.readable >= state else "not yet"


def _age(us: int) -> str:
    seconds = us // 1_000_000
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
