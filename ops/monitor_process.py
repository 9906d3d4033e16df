"""The monitor's process: waits for a first model, runs the Faust app, and replaces itself when models come or go."""

import logging
import os
import sys
from collections.abc import Mapping
from contextlib import suppress

from ekko.ops.process import central_cluster, stop_on_signals
from ekko.ops.settings import Settings
from ekko.schemas.declarations import ModelDeclaration
from ekko.schemas.errors import TopicMissing
from ekko.streams.catalogue import Catalogue
from ekko.streams.monitor_app import Monitor
from ekko.streams.monitor_settings import MonitorSettings, broker_settings

_WAIT_S = 0.5


def run(settings: Settings, monitor_settings: MonitorSettings) -> None:
    """Run until a signal ends it.

    Raises:
        ConfigurationError: a Kafka setting that Faust's driver cannot take.
        ConnectionFailed: no broker answers.
    """
    stop = stop_on_signals()
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

    monitor_settings.data.mkdir(parents=True, exist_ok=True)
    monitor = Monitor(broker, monitor_settings, catalogue.codec, catalogue.models, declared)
    monitor.run()
    if monitor.restart:
        # A fresh process is the one sure way to give Faust another set of topics.
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - the very command that runs
