"""The fan-out and the monitor: shares come in, gradient norms go out. Never on the path of an update."""

from collections.abc import Mapping
from contextlib import suppress

from ekko.schemas import topics
from ekko.schemas.codec import encode
from ekko.schemas.declarations import ModelDeclaration
from ekko.schemas.errors import EkkoError, QueueFull
from ekko.schemas.signals import Shares, Signal
from ekko.streams.fanout.context import RegionContext
from ekko.streams.log import Output, Partition, Reader, Writer


class Advice:
    """Follows `ekko.shares` for the sorter, and reports what the sorter saw to the models' signals."""

    def __init__(self, context: RegionContext) -> None:
        self._context = context
        self._shares: dict[str, Shares] = {}
        self._reader: Reader | None = None
        self._writer: Writer | None = None
        self._due_s = 0.0

    def step(self, now_s: float) -> None:
        """Take in new shares and report if it is time; never waits.

        Raises:
            EkkoError: the central cluster cannot be used now; the next step tries again.
        """
        models = self._context.catalogue.models
        self._follow(models)
        if now_s >= self._due_s:
            self._due_s = now_s + self._context.settings.signal_interval_s
            self._report(models, now_s)

    def close(self) -> None:
        """Release the connections."""
        for client in (self._reader, self._writer):
            if client is not None:
                client.close()
        self._reader = self._writer = None

    def _follow(self, models: Mapping[str, ModelDeclaration]) -> None:
        if self._reader is None:
            partition = Partition(topics.SHARES, 0)
            start = self._context.central.bounds([partition])[partition].low
            self._reader = self._context.central.reader()
            self._reader.assign({partition: start})
        for record in self._reader.poll(0.0):
            with suppress(EkkoError):  # the monitor only advises: a bad record only means older shares
                shares = self._context.catalogue.decode(record.value)
                if isinstance(shares, Shares):
                    self._shares[shares.model] = shares
        known = self._shares.items()
        current = {at: shares for at, shares in known if at in models and models[at].incarnation == shares.incarnation}
        self._context.sorter.learn(current, len(models))

    def _report(self, models: Mapping[str, ModelDeclaration], now_s: float) -> None:
        if self._writer is None:
            self._writer = self._context.central.writer()
        region = self._context.region.name
        for model in models:
            total, count = self._context.sorter.take_report(model)
            if count:
                signal = Signal(model, region, f"fanout/{region}", "gradient_norm", total, count, int(now_s * 1e6))
                with suppress(QueueFull):  # a report that is lost is no loss
                    self._writer.send(Output(Partition(topics.signals(model), 0), encode(signal)))
        self._writer.poll(0.0)
