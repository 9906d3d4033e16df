"""The fan-out of one region: every shard group of every model, each independent of the others."""

import logging
import socket
import threading
from collections.abc import Callable
from typing import NamedTuple

from ekko.schemas import topics
from ekko.schemas.errors import EkkoError
from ekko.streams.catalogue.shared import SharedCatalogue
from ekko.streams.fanout import metrics
from ekko.streams.fanout.advice import Advice
from ekko.streams.fanout.budget import Budget
from ekko.streams.fanout.context import RegionContext
from ekko.streams.fanout.group import GroupFanout
from ekko.streams.fanout.instances import Instances, owner
from ekko.streams.fanout.memory import MemoryBound
from ekko.streams.fanout.mirror import RegionMirror
from ekko.streams.fanout.pending import Waiting
from ekko.streams.fanout.score import load_score
from ekko.streams.fanout.settings import FanoutSettings
from ekko.streams.fanout.sorting import Sorter
from ekko.streams.groups import GroupCommits
from ekko.streams.log import Cluster, Partition

_log = logging.getLogger(__name__)
_HOUSEKEEPING_S = 0.1


class GroupIdentity(NamedTuple):
    """A shard group of a model."""

    model: str
    incarnation: int
    number: int

    def __str__(self) -> str:
        return f"{self.model}@{self.incarnation}.{self.number}"


class RegionFanout:
    """Fans all models of the catalogue out to one region; several instances share the shard groups.

    `step` does everything once, for simulations; `run` gives every shard group a thread of its own, so that one that
    waits for a broker holds up no other.

    Args:
        central: cluster of the catalogue and the source logs.
        regional: cluster of the region's lanes; may be the same object.
        region: the region's name.
        clock: seconds since 1970.
        instance: the same after a restart, another one for every instance that lives at a time; the host's name.

    Raises:
        ConfigurationError: the catalogue has no such region, or a setting cannot be used.
    """

    def __init__(
        self,
        central: Cluster,
        regional: Cluster,
        region: str,
        *,
        settings: FanoutSettings | None = None,
        clock: Callable[[], float],
        instance: str | None = None,
    ) -> None:
        chosen = settings or FanoutSettings()
        catalogue = SharedCatalogue(central)
        catalogue.refresh(chosen.timeout_s)
        budget = Budget(chosen.bandwidth_bytes_per_s, bulk_share=chosen.bulk_share, now_s=clock())
        sorter = Sorter(
            chosen.express_percentile,
            load_score(chosen.score),
            chosen.score or "ekko",
            excess=budget.excess if budget.limited else None,
        )
        self._context = RegionContext(
            central,
            regional,
            catalogue.region(region),
            catalogue,
            sorter,
            budget,
            MemoryBound(chosen.pending_bytes),
            chosen,
        )
        metrics.BULK_MAX_AGE.labels(region).set(chosen.bulk_max_age_s)
        self._clock = clock
        name = instance or socket.gethostname()
        self._advice = Advice(self._context, name)
        self._mirror = RegionMirror(central, regional) if self._context.region.bootstrap else None
        self._instances = Instances(
            regional,
            region,
            name,
            clock(),
            interval_s=chosen.announce_s,
            lifetime_s=chosen.lifetime_s,
        )
        self.groups: dict[GroupIdentity, GroupFanout] = {}
        """What this instance works on."""
        self._retired: list[GroupFanout] = []
        self._failure = ""

    @property
    def halted(self) -> dict[str, str]:
        """The "model/shard"s that stand still here, and why."""
        groups = list(self.groups.values())
        return {
            f"{group.model.name}/{shard}": error.message
            for group in groups
            for shard, error in sorted(dict(group.halted).items())
        }

    @property
    def waiting(self) -> dict[str, Waiting]:
        """How much waits here, by model."""
        found: dict[str, Waiting] = {}
        for group in list(self.groups.values()):
            found[group.model.name] = found.get(group.model.name, Waiting()).plus(group.waiting)
        return found

    @property
    def reading(self) -> set[str]:
        """The models of which no shard group stands still here."""
        groups = list(self.groups.values())
        still = {group.model.name for group in groups if not group.reading}
        return {group.model.name for group in groups} - still

    def step(self, now_s: float) -> bool:
        """Do what is due everywhere, once; returns whether anything was done.

        Raises:
            Fenced: another process with this instance's name has started.
        """
        self.keep_house(now_s)
        if self._mirror is not None and self._owns("mirror"):
            self._mirror.step(now_s, self._context.catalogue.models)
        while self._retired:
            self._retired.pop().retire()
        done = [group.step(now_s) for group in list(self.groups.values())]
        return any(done)

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set.

        Raises:
            Fenced: another process with this instance's name has started; everything was stopped.
        """
        threads: dict[GroupIdentity, threading.Thread] = {}
        failures: list[BaseException] = []
        mirror = threading.Thread(target=self._run_mirror, args=(stop, failures), name="fanout-mirror")
        mirror.start()
        commits = GroupCommits(self._context.central)
        try:
            while not stop.is_set() and not failures:
                self.keep_house(self._clock())
                if commits.due():
                    commits.step(self._places())
                for at in self.groups.keys() - threads.keys():
                    arguments = at, stop, failures
                    threads[at] = threading.Thread(target=self._run_group, args=arguments, name=f"fanout-{at}")
                    threads[at].start()
                self._retired.clear()  # each one's thread sees that it is no longer among the groups, and closes it
                threads = {at: thread for at, thread in threads.items() if thread.is_alive()}
                stop.wait(_HOUSEKEEPING_S)
        finally:
            stop.set()
            for thread in (*threads.values(), mirror):
                thread.join()
            commits.close()
            self.close()
        if failures:
            raise failures[0]

    def keep_house(self, now_s: float) -> None:
        """Follow catalogue, instances and the monitor; begin with this instance's groups and end what is others'.

        Raises:
            Fenced: another process with this instance's name has started.
        """
        self._instances.step(now_s, self.halted)
        try:
            self._context.catalogue.poll()
            self._follow_groups()
            self._advice.step(now_s, self.waiting, self.reading)
            self._failure = ""
        except EkkoError as error:
            if str(error) != self._failure:
                _log.warning("fan-out of region %s: %s (%s)", self._context.region.name, error, error.hint)
            self._failure = str(error)

    def close(self) -> None:
        """Release all connections, and tell the other instances."""
        for group in self.groups.values():
            group.close()
        self.groups = {}
        self._advice.close()
        if self._mirror is not None:
            self._mirror.close()
        self._instances.leave(self._clock())
        self._context.catalogue.close()

    def _owns(self, what: str) -> bool:
        living = self._instances.living
        return bool(living) and owner(living, what) == self._instances.name

    def _follow_groups(self) -> None:
        models = self._context.catalogue.models.values()
        chosen = self._context.settings.models
        everything = {
            GroupIdentity(model.name, model.incarnation or 0, number): model
            for model in models
            if not chosen or model.name in chosen
            for number in range(model.shard_groups)
        }
        mine = {at: model for at, model in everything.items() if self._owns(str(at))}
        if mine.keys() == self.groups.keys():
            return
        kept = {at: group for at, group in self.groups.items() if at in mine}
        new = {at: GroupFanout(mine[at], at.number, self._context) for at in mine.keys() - kept.keys()}
        dropped = [group for at, group in self.groups.items() if at not in mine]
        self.groups = kept | new
        self._retired += dropped
        # Without any model there is nothing to share the link with.
        self._context.budget.set_share(len(mine) / len(everything) if everything else 1.0)
        # Groups of a model differ by one shard at most.
        self._context.memory.set_shards(sum(-(-model.shards // model.shard_groups) for model in mine.values()))

    def _places(self) -> dict[str, dict[Partition, int]]:
        """By consumer group, one a model: how far the source logs are read here."""
        region = self._context.region
        places: dict[str, dict[Partition, int]] = {}
        for at, group in self.groups.items():
            assert region.incarnation is not None
            name = topics.fanout_group(at.model, at.incarnation, region.name, region.incarnation)
            places.setdefault(name, {}).update(group.positions)
        return {name: positions for name, positions in places.items() if positions}

    def _run_group(self, at: GroupIdentity, stop: threading.Event, failures: list[BaseException]) -> None:
        group = self.groups.get(at)
        try:
            while group is not None and not stop.is_set() and self.groups.get(at) is group:
                if not group.step(self._clock()) and group.failure is not None:
                    stop.wait(_HOUSEKEEPING_S)
        except BaseException as error:  # noqa: BLE001 - told to the main thread, which raises it
            failures.append(error)
        finally:
            if group is not None:
                group.retire()

    def _run_mirror(self, stop: threading.Event, failures: list[BaseException]) -> None:
        try:
            while self._mirror is not None and not stop.is_set():
                models = self._context.catalogue.models
                if not (self._owns("mirror") and self._mirror.step(self._clock(), models, timeout_s=0.1)):
                    stop.wait(0.01)
        except BaseException as error:  # noqa: BLE001 - told to the main thread, which raises it
            failures.append(error)
