"""The monitor's process: waits for a first model, runs the Faust app, replaces itself when models come or go.

Faust can be alive and read nothing. So a thread of its own looks whether signals are taken; if not, it says so and ends
the process with exit code 1, at once and not through Faust: whoever supervises it starts it again.
"""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress

from ekko.ops.broker import ports
from ekko.ops.process import central_cluster, stop_on_signals
from ekko.ops.settings import Settings
from ekko.schemas import topics
from ekko.schemas.declarations import ModelDeclaration
from ekko.schemas.errors import ConfigurationError, EkkoError, TopicMissing
from ekko.storage.disk.data_folder import make_folder
from ekko.streams.catalogue import Catalogue
from ekko.streams.groups import Group
from ekko.streams.kafka import KafkaCluster
from ekko.streams.log import Partition
from ekko.streams.monitor.app import Monitor
from ekko.streams.monitor.recall import Recalled, recall
from ekko.streams.monitor.settings import GROUP, MonitorSettings, broker_settings
from ekko.streams.monitor.stall import StallWatch

_WAIT_S = 0.5
_LOOK_S = 2.0
_LAST_S = 10.0
"""For an orderly end: while its broker is away, Faust's consumer closes for minutes. Nothing exact is lost with it."""

_log = logging.getLogger(__name__)


def run(settings: Settings, monitor_settings: MonitorSettings) -> None:
    """Run until a signal ends it.

    Raises:
        ConfigurationError: a Kafka setting that Faust's driver cannot take, a folder that cannot be written to, or a
            port that is taken.
        ConnectionFailed: no broker answers.
    """
    stop = stop_on_signals()
    make_folder(monitor_settings.data, "EKKO_DATA")
    _require_free(monitor_settings.host, monitor_settings.port)
    for name in ("aiokafka", "faust", "mode"):
        logging.getLogger(name).setLevel(logging.WARNING)
    address = settings.central()
    broker = broker_settings(address.bootstrap, address.kafka)
    catalogue = Catalogue(central_cluster(settings))
    while not stop.is_set():
        with suppress(TopicMissing):  # nothing is declared yet
            catalogue.refresh()
        if catalogue.models:
            break
        stop.wait(_WAIT_S)
    if stop.is_set():
        return

    def declared() -> Mapping[str, ModelDeclaration]:
        catalogue.refresh()
        return catalogue.models

    cluster = central_cluster(settings)

    def recalled(model: str) -> Recalled:
        return recall(cluster, catalogue.codec, model)

    monitor = Monitor(broker, monitor_settings, catalogue.codec, catalogue.models, declared=declared, recall=recalled)
    watched = stop, cluster, cluster.group(GROUP), tuple(catalogue.models), monitor_settings.stall_s
    threading.Thread(target=_watch, args=watched, name="stall watch", daemon=True).start()
    threading.Thread(target=_end_in_time, args=(monitor,), name="end in time", daemon=True).start()
    monitor.run()
    if monitor.restart:
        _begin_anew()


def _begin_anew() -> None:
    """A fresh process is the one sure way to give Faust another set of topics."""
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - the very command that runs


def _require_free(host: str, port: int) -> None:
    """Faust would tell a port that is taken by a traceback."""
    if not ports.is_free(host, port):
        raise ConfigurationError(
            f"cannot listen on {host}:{port}",
            hint="another process holds the port, or the host is no address of this machine; see --host and --port",
        )


def pass_on(stop: threading.Event) -> None:
    """Send a signal again that came before Faust's own handlers stood: it would be lost."""
    if stop.is_set():
        stop.clear()
        os.kill(os.getpid(), signal.SIGTERM)


def _end_in_time(monitor: Monitor) -> None:
    while not monitor.stopping:
        time.sleep(_LOOK_S)
    time.sleep(_LAST_S)
    _log.warning("Faust has not ended within %g s: the process ends without it", _LAST_S)
    if monitor.restart and not monitor.crashed:
        _begin_anew()
    os._exit(int(monitor.crashed))


def _watch(stop: threading.Event, cluster: KafkaCluster, group: Group, models: Iterable[str], stall_s: float) -> None:
    partitions = [Partition(topics.signals(model), 0) for model in models]
    patience = max(1, round(stall_s / _LOOK_S))
    watch = StallWatch(patience)
    while True:
        time.sleep(_LOOK_S)
        pass_on(stop)
        try:
            places = {partition: place.offset for partition, place in group.committed(partitions).items()}
            waiting = watch.look(cluster.bounds(partitions), places)
        except EkkoError:  # brokers away, or a model deleted, which the app follows: no fault of the monitor's
            watch = StallWatch(patience)
            continue
        if waiting:
            told = ", ".join(f"{count} in {partition.topic}" for partition, count in sorted(waiting.items()))
            _log.error("signals wait (%s) and none was taken for %g s: the process ends", told, stall_s)
            os._exit(1)
