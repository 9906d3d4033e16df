"""The fan-out of one region: every shard group of every model, each independent of the others."""

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from ekko.schemas import topics
from ekko.schemas.codec import encode
from ekko.schemas.errors import EkkoError, QueueFull
from ekko.schemas.signals import Shares, Signal
from ekko.streams.fanout.budget import Budget
from ekko.streams.fanout.context import RegionContext
from ekko.streams.fanout.group import GroupFanout
from ekko.streams.fanout.mirror import RegionMirror
from ekko.streams.fanout.score import load_score
from ekko.streams.fanout.settings import FanoutSettings
from ekko.streams.fanout.shared_catalogue import SharedCatalogue
from ekko.streams.fanout.sorting import Sorter
from ekko.streams.log import Cluster, Output, Partition, Reader, Writer

if TYPE_CHECKING:
    from ekko.schemas.declarations import ModelDeclaration

_log = logging.getLogger(__name__)
_HOUSEKEEPING_S = 0.1


class RegionFanout:
    """Fans all models of the catalogue out to one region.

    `step` does everything once, for simulations; `run` gives every shard group a thread of its own, so that one that
    waits for a broker holds up no other.

    Args:
        central: cluster of the catalogue and the source logs.
        regional: cluster of the region's lanes; may be the same object.
        region: the region's name.
        clock: seconds since 1970.

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
    ) -> None:
        chosen = settings or FanoutSettings()
        catalogue = SharedCatalogue(central)
        catalogue.refresh(chosen.timeout_s)
        budget = Budget(chosen.bandwidth_bytes_per_s, bulk_share=chosen.bulk_share, now_s=clock())
        sorter = Sorter(chosen.express_percentile, budget, load_score(chosen.score), chosen.score or "ekko")
        self._context = RegionContext(central, regional, catalogue.region(region), catalogue, sorter, budget, chosen)
        self._clock = clock
        self._mirror = RegionMirror(central, regional) if self._context.region.bootstrap else None
        self._shares: dict[str, Shares] = {}
        self._shares_reader: Reader | None = None
        self._signals: Writer | None = None
        self._signals_due_s = 0.0
        self.groups: dict[tuple[str, int, int], GroupFanout] = {}
        """By model, incarnation and group number."""
        self._failure = ""

    def step(self, now_s: float) -> bool:
        """Do what is due everywhere, once; returns whether anything was done.

        Raises:
            Fenced: another instance has taken over.
        """
        self.keep_house(now_s)
        if self._mirror is not None:
            self._mirror.step(now_s, self._context.catalogue.models)
        done = [group.step(now_s) for group in list(self.groups.values())]
        return any(done)

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set.

        Raises:
            Fenced: another instance has taken a shard group over; everything was stopped.
        """
        threads: dict[tuple[str, int, int], threading.Thread] = {}
        failures: list[BaseException] = []
        mirror = threading.Thread(target=self._run_mirror, args=(stop, failures), name="fanout-mirror")
        mirror.start()
        try:
            while not stop.is_set() and not failures:
                self.keep_house(self._clock())
                for identity in self.groups.keys() - threads.keys():
                    arguments = identity, stop, failures
                    threads[identity] = threading.Thread(
                        target=self._run_group, args=arguments, name=f"fanout-{identity}"
                    )
                    threads[identity].start()
                threads = {identity: thread for identity, thread in threads.items() if thread.is_alive()}
                stop.wait(_HOUSEKEEPING_S)
        finally:
            stop.set()
            for thread in (*threads.values(), mirror):
                thread.join()
            self.close()
        if failures:
            raise failures[0]

    def close(self) -> None:
        """Release all connections."""
        for group in self.groups.values():
            group.close()
        self.groups = {}
        for client in (self._shares_reader, self._signals):
            if client is not None:
                client.close()
        self._shares_reader = self._signals = None
        if self._mirror is not None:
            self._mirror.close()
        self._context.catalogue.close()

    def _run_group(self, identity: tuple[str, int, int], stop: threading.Event, failures: list[BaseException]) -> None:
        group = self.groups[identity]
        try:
            while not stop.is_set() and self.groups.get(identity) is group:
                if not group.step(self._clock()) and group.failure is not None:
                    stop.wait(_HOUSEKEEPING_S)
        except BaseException as error:  # noqa: BLE001 - told to the main thread, which raises it
            failures.append(error)
        finally:
            group.close()

    def _run_mirror(self, stop: threading.Event, failures: list[BaseException]) -> None:
        try:
            while self._mirror is not None and not stop.is_set():
                if not self._mirror.step(self._clock(), self._context.catalogue.models, timeout_s=0.1):
                    stop.wait(0.01)
        except BaseException as error:  # noqa: BLE001 - told to the main thread, which raises it
            failures.append(error)

    # ---- housekeeping: never on the path of an update ----------------------------------------------------------------

    def keep_house(self, now_s: float) -> None:
        """Follow the catalogue and the monitor's shares, and report gradient norms."""
        try:
            self._context.catalogue.poll()
            self._follow_models()
            self._follow_shares()
            self._send_signals(now_s)
        except EkkoError as error:
            if str(error) != self._failure:
                _log.warning("fan-out of region %s: %s", self._context.region.name, error)
            self._failure = str(error)

    def _follow_models(self) -> None:
        wanted: dict[tuple[str, int, int], ModelDeclaration] = {}
        chosen = self._context.settings.models
        for model in self._context.catalogue.models.values():
            if chosen and model.name not in chosen:
                continue
            assert model.incarnation is not None
            wanted |= {(model.name, model.incarnation, number): model for number in range(model.shard_groups)}
        gone = self.groups.keys() - wanted.keys()
        new = {at: GroupFanout(wanted[at], at[2], self._context) for at in wanted.keys() - self.groups.keys()}
        if gone or new:
            # A thread whose group is no longer here ends and closes it.
            self.groups = {at: group for at, group in self.groups.items() if at not in gone} | new

    def _follow_shares(self) -> None:
        context = self._context
        if self._shares_reader is None:
            partition = Partition(topics.SHARES, 0)
            start = context.central.bounds([partition])[partition].low
            self._shares_reader = context.central.reader()
            self._shares_reader.assign({partition: start})
        for record in self._shares_reader.poll(0.0):
            with suppress(EkkoError):  # what the monitor says is advice: a bad record only means older shares
                shares = context.catalogue.decode(record.value)
                if isinstance(shares, Shares):
                    self._shares[shares.model] = shares
        models = context.catalogue.models
        current = {
            name: shares
            for name, shares in self._shares.items()
            if name in models and models[name].incarnation == shares.incarnation
        }
        context.sorter.learn(current, len(models))

    def _send_signals(self, now_s: float) -> None:
        if now_s < self._signals_due_s:
            return
        self._signals_due_s = now_s + self._context.settings.signal_interval_s
        if self._signals is None:
            self._signals = self._context.central.writer()
        source, region = f"fanout/{self._context.region.name}", self._context.region.name
        for model in self._context.catalogue.models:
            total, count = self._context.sorter.take_report(model)
            if count:
                signal = Signal(model, region, source, "gradient_norm", total, count, int(now_s * 1e6))
                with suppress(QueueFull):  # a report that is lost is no loss
                    self._signals.send(Output(Partition(topics.signals(model), 0), encode(signal)))
        self._signals.poll(0.0)
