"""The monitor's wiring: a Faust app over the signals topics, windowed tables, a timer (the only Faust importer).

Faust is used for what it does well (docs: DESIGN section 7): at-least-once, outputs keyed and repeatable, low rates.
An exception in an agent would acknowledge its event without a word, so every body is guarded: what cannot be read is
counted, logged with topic and offset, and shown on the page /health/.

The tables have no changelog topic. Windows are worth some seconds of signals, and Faust's recovery could wait for ever:
once retention had deleted the beginning of a changelog, Faust sought the offset before the first one left, was sent to
the end by `latest`, and no event came (faust-streaming/faust#597; after a restart likewise).
"""

import asyncio
import logging
import os
import signal
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import faust

from ekko.schemas import topics
from ekko.schemas.codec import Codec, encode
from ekko.schemas.declarations import ModelDeclaration
from ekko.schemas.errors import EkkoError
from ekko.schemas.signals import Shares, Signal
from ekko.streams.health.board import Board
from ekko.streams.health.buckets import Total
from ekko.streams.health.standard import tracks
from ekko.streams.health.trainers import TrainerWatch
from ekko.streams.monitor import metrics
from ekko.streams.monitor.following import Following
from ekko.streams.monitor.recall import Recalled
from ekko.streams.monitor.settings import GROUP, BrokerSettings, MonitorSettings
from ekko.streams.monitor.shares import Measure, contributions, needs_restart, shares, table_key

_log = logging.getLogger(__name__)

Declared = Callable[[], Mapping[str, ModelDeclaration]]
"""Reads the models that the catalogue declares now; may block."""
Recall = Callable[[str], Recalled]
"""Reads back what a model's signals have said of its trainers; may block."""


class Monitor:
    """One run of the Faust app over a fixed set of models.

    Args:
        models: whose signals are followed.
        declared: asked every `catalogue_interval_s`; when models have come or gone the app stops and `restart` is true.
        recall: asked for each model whose signals this process is given.
    """

    def __init__(
        self,
        broker: BrokerSettings,
        settings: MonitorSettings,
        codec: Codec,
        models: Mapping[str, ModelDeclaration],
        *,
        declared: Declared,
        recall: Recall,
    ) -> None:
        self.restart = False
        self.unreadable = 0
        self._codec, self._models, self._declared, self._settings = codec, models, declared, settings
        self._recall, self._following, self._recalling = recall, Following(models), asyncio.Lock()
        self._latest: list[Shares] = []
        self._worker: faust.Worker | None = None
        self.app = make_app(broker, settings)
        tables = [_WindowTable(self.app, name=name, default=float) for name in ("windows", "samples")]
        self._windows = tables[0].hopping(settings.window_s, settings.step_s, expires=2 * settings.window_s)
        longest_s = max(settings.grace_s, settings.label_delay_s)
        self._samples: Any = tables[1].tumbling(settings.bucket_s, expires=10 * settings.bucket_s + 2 * longest_s + 20)
        self._tables = tables
        judged = tracks(settings.grace_s, settings.label_delay_s)
        self._board = Board(models, *judged, bucket_s=settings.bucket_s, now_s=time.time())
        self._shares = self.app.topic(
            topics.SHARES, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw"
        )
        self._wire(settings)

    def run(self) -> None:
        """Run until SIGINT or SIGTERM, or until `restart` is set."""
        worker = faust.Worker(self.app, loglevel="WARNING", override_logging=False, redirect_stdouts=False, quiet=True)
        worker.spinner = None  # it writes terminal escapes, into a file too
        self._worker = worker
        try:
            worker.execute_from_commandline()
        except SystemExit as ending:
            if ending.code:
                raise

    @property
    def stopping(self) -> bool:
        """Whether it was asked to end and has begun to; may be asked by any thread."""
        return self._worker is not None and bool(self._worker.should_stop)

    @property
    def crashed(self) -> bool:
        """Whether it is ending because of an error."""
        return self._worker is not None and bool(self._worker.crashed)

    def _wire(self, settings: MonitorSettings) -> None:
        signals = self.app.topic(
            *(topics.signals(name) for name in self._models), value_type=bytes, value_serializer="raw"
        )
        self._proposals = {
            name: self.app.topic(topics.signals(name), value_type=bytes, value_serializer="raw")
            for name in self._models
        }
        self.app.agent(signals, name="signals")(self._take_signals)
        self.app.task(self._start_tables)
        self.app.timer(settings.publish_interval_s)(self._publish)
        self.app.timer(settings.bucket_s)(self._judge)
        self.app.timer(settings.bucket_s)(self._follow_trainers)
        self.app.timer(settings.catalogue_interval_s)(self._follow_catalogue)
        self._wire_pages()

    async def _start_tables(self) -> None:
        for table in self._tables:
            await self.app.add_runtime_dependency(table)

    async def _take_signals(self, stream: Any) -> None:
        models = {topics.signals(model): model for model in self._models}
        async for event in stream.events():
            message = event.message
            async with self._recalling:  # what is being read back may hold it
                new = self._following.is_next(models[message.topic], message.offset)
            try:
                self._take(message.value, new=new)
            except Exception:  # noqa: BLE001 - see above: Faust would swallow it
                self.unreadable += 1
                _log.exception("%s[%d] offset %d: no signal, skipped", message.topic, message.partition, message.offset)

    def _take(self, value: bytes, *, new: bool) -> None:
        """Take in a signal; unless it is `new`, what it says of trainers is known, or will be read back."""
        decoded = self._codec.decode(value)
        if not isinstance(decoded, Signal):
            raise EkkoError(f"a {type(decoded).__name__} in a signals topic")
        for measure, amount in contributions(decoded):
            self._windows[table_key(decoded.model, measure)] += amount
        if new:
            self._board.hear(decoded)
        if self._board.accepts(decoded):
            samples = self._samples.relative_to(decoded.event_us / 1e6)
            samples[_sample_key(decoded.model, decoded.metric, decoded.cohort, "sum")] += decoded.value
            samples[_sample_key(decoded.model, decoded.metric, decoded.cohort, "count")] += float(decoded.count)

    def _total(self, model: str, measure: Measure) -> float:
        # Outside of an agent `now` is the oldest window that is still open: the last window_s seconds, less one step.
        return float(self._windows[table_key(model, measure)].now())

    async def _publish(self) -> None:
        self._latest = shares(self._models, self._total, int(time.time() * 1e6)) or self._latest
        for share in self._latest:
            await self._shares.send(key=share.model.encode(), value=encode(share))

    def _sampled(self, model: str, metric: str, cohort: str, start_s: float) -> Total:
        # The middle of the bucket, so that no rounding makes it another one's.
        samples = self._samples.relative_to(start_s + self._settings.bucket_s / 2)
        return Total(*(samples[_sample_key(model, metric, cohort, part)].value() for part in ("sum", "count")))

    async def _judge(self) -> None:
        for proposal in self._board.judge(time.time(), self._sampled):
            if proposal.model in self._following:  # else another monitor is given its signals
                await self._proposals[proposal.model].send(value=encode(proposal))

    async def _follow_trainers(self) -> None:
        assigned = {partition.topic for partition in self.app.assignor.assigned_actives()}
        given = {model for model in self._models if topics.signals(model) in assigned}
        for model in self._following.keep(given):
            self._board.follow(model, TrainerWatch())
        for model in self._following.missing(given):
            async with self._recalling:
                try:
                    recalled = await asyncio.get_running_loop().run_in_executor(None, self._recall, model)
                except EkkoError as error:
                    _log.warning("model %s: its signals cannot be read back, which is tried again: %s", model, error)
                else:
                    self._board.follow(model, recalled.watch)
                    self._following.begin(model, recalled.end)

    async def _follow_catalogue(self) -> None:
        try:
            declared = await asyncio.get_running_loop().run_in_executor(None, self._declared)
        except EkkoError as error:
            _log.warning("catalogue cannot be read: %s", error)
            return
        if needs_restart(self._models, declared) and not self.restart:
            self.restart = True
            os.kill(os.getpid(), signal.SIGTERM)  # the worker's own way to end: offsets committed, group left

    def _wire_pages(self) -> None:
        @self.app.page("/shares/")
        async def shares_page(view: Any, _request: Any) -> Any:
            return view.json([asdict(share) for share in self._latest])

        @self.app.page("/metrics")
        async def metrics_page(view: Any, _request: Any) -> Any:
            return view.text(metrics.page(self._board.silent(), self._board.late))

        @self.app.page("/health/")
        async def health_page(view: Any, _request: Any) -> Any:
            return view.json(
                {
                    "models": sorted(self._models),
                    "unreadable_signals": self.unreadable,
                    "late_signals": self._board.late,
                    "silent_trainers": {
                        model: {name: asdict(each) for name, each in silent.items()}
                        for model, silent in self._board.silent().items()
                    },
                }
            )


class _WindowTable(faust.Table[str, float]):
    """A windowed table in memory that the app's table manager, and with it recovery, never learns of."""

    async def on_start(self) -> None:
        """Start the store; no topic is declared."""
        await self.add_runtime_dependency(self.data)

    def on_key_set(self, key: Any, value: float) -> None:
        """Note when the window of `key` expires; nothing is sent."""
        self._maybe_set_key_ttl(key, _event_partition())
        self._sensor_on_set(self, key, value)

    def on_key_del(self, key: Any) -> None:
        """Forget when the window of `key` expires; nothing is sent."""
        self._maybe_del_key_ttl(key, _event_partition())
        self._sensor_on_del(self, key)


def _event_partition() -> int:
    event = faust.current_event()
    if event is None:
        raise RuntimeError("windows are written by the signals' agent alone")
    return int(event.message.partition)


def _sample_key(model: str, metric: str, cohort: str, part: str) -> str:
    return f"{model}/{metric}/{cohort}/{part}"


def make_app(broker: BrokerSettings, settings: MonitorSettings) -> faust.App:
    """The Faust app, without agents: group `ekko-monitor`, tables in memory."""
    return faust.App(
        GROUP,
        broker=list(broker.urls),
        broker_client_id=broker.client_id,
        broker_credentials=_credentials(broker),
        broker_session_timeout=settings.session_timeout_s,
        broker_heartbeat_interval=settings.session_timeout_s / 4,
        broker_commit_interval=1.0,
        consumer_auto_offset_reset="latest",
        processing_guarantee="at_least_once",
        stream_buffer_maxsize=256,
        store="memory://",
        datadir=settings.data,
        topic_disable_leader=True,
        topic_partitions=1,
        web_bind=settings.host,
        web_host=settings.host,
        web_port=settings.port,
    )


def _credentials(broker: BrokerSettings) -> Any:
    context = ssl.create_default_context(cafile=broker.ca_file) if broker.tls else None
    if context is not None and broker.certificate_file:
        context.load_cert_chain(broker.certificate_file, broker.key_file, broker.key_password)
    if broker.mechanism is None:
        return faust.SSLCredentials(context) if context is not None else None
    return faust.SASLCredentials(
        username=broker.username, password=broker.password, ssl_context=context, mechanism=broker.mechanism
    )
