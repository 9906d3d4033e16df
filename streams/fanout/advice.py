"""The fan-out and its watchers: shares come in; gradient norms, whose blocks came and what waits go out.

Never on an update's path.
"""

from collections.abc import Collection, Mapping
from contextlib import suppress

from ekko.schemas import topics
from ekko.schemas.codec import encode
from ekko.schemas.declarations import ModelDeclaration
from ekko.schemas.errors import EkkoError, QueueFull
from ekko.schemas.signals import ENDED, PENDING_BYTES, PUBLISHED, REFUSED, TRAINER, TRAINERS_HEARD, Shares, Signal
from ekko.streams.fanout.context import RegionContext
from ekko.streams.fanout.pending import Waiting
from ekko.streams.log import Output, Partition, Reader, Writer, reading


class Advice:
    """Follows `ekko.shares` for the sorter, and reports what the sorter saw, and what waits, to the models' signals.

    Args:
        instance: this process among several for the region; the source of its signals.
    """

    def __init__(self, context: RegionContext, instance: str) -> None:
        self._context = context
        self._source = f"fanout/{instance}"
        self._shares: dict[str, Shares] = {}
        self._reader: Reader | None = None
        self._writer: Writer | None = None
        self._due_s = 0.0

    def step(self, now_s: float, waiting: Mapping[str, Waiting], reading: Collection[str]) -> None:
        """Take in new shares and report if it is time; never waits.

        Args:
            waiting: what waits here, by model.
            reading: models of which all that is this instance's is being read.

        Raises:
            EkkoError: the central cluster cannot be used now; the next step tries again.
        """
        models = self._context.catalogue.models
        self._follow(models)
        if now_s >= self._due_s:
            self._due_s = now_s + self._context.settings.signal_interval_s
            if self._writer is None:
                self._writer = self._context.central.writer()
            for model in models:
                self._report(model, waiting.get(model), now_s)
                self._report_trainers(model, now_s, reading=model in reading)
            self._writer.poll(0.0)

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
            self._reader = reading(self._context.central, {partition: start})
        for record in self._reader.poll(0.0):
            with suppress(EkkoError):  # the monitor only advises: a bad record only means older shares
                shares = self._context.catalogue.decode(record.value)
                if isinstance(shares, Shares):
                    self._shares[shares.model] = shares
        known = self._shares.items()
        current = {at: shares for at, shares in known if at in models and models[at].incarnation == shares.incarnation}
        self._context.sorter.learn(current, len(models))

    def _report(self, model: str, waiting: Waiting | None, now_s: float) -> None:
        region, now_us = self._context.region.name, int(now_s * 1e6)
        total, count = self._context.sorter.take_report(model)
        if count:
            self._send(Signal(model, region, self._source, "gradient_norm", total, count, now_us))
        refused = self._context.refused.pop(model, 0)
        if refused:
            self._send(Signal(model, region, self._source, REFUSED, float(refused), refused, now_us))
        if waiting is not None:
            rows, nbytes = waiting
            self._send(Signal(model, region, self._source, PENDING_BYTES, float(nbytes), rows, now_us))

    def _report_trainers(self, model: str, now_s: float, *, reading: bool) -> None:
        region, news = self._context.region.name, self._context.trainers.take(model)
        for trainer, heard in news.heard.items():
            source, blocks = TRAINER + trainer, heard.blocks
            self._send(Signal(model, region, source, PUBLISHED, float(blocks), blocks, heard.published_us))
        for trainer, since_us in news.blocked.items():
            self._send(Signal(model, region, TRAINER + trainer, ENDED, 1.0, 1, since_us))
        if reading:
            count = len(news.heard)
            self._send(Signal(model, region, self._source, TRAINERS_HEARD, float(count), count, int(now_s * 1e6)))

    def _send(self, signal: Signal) -> None:
        assert self._writer is not None
        with suppress(QueueFull):  # a report that is lost is no loss
            self._writer.send(Output(Partition(topics.signals(signal.model), 0), encode(signal)))
