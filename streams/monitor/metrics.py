"""What the monitor tells Prometheus."""

from collections.abc import Mapping

from prometheus_client import Gauge, generate_latest

from ekko.streams.health.trainers import SilentTrainer

SILENT = Gauge(
    "ekko_monitor_silent_trainer_seconds",
    "For how long a trainer has published nothing, while it counts as silent.",
    ["model", "trainer"],
)


def page(silent: Mapping[str, Mapping[str, SilentTrainer]]) -> str:
    """All figures in Prometheus's text format, with the trainers that are silent now, by model and name."""
    SILENT.clear()
    for model, trainers in silent.items():
        for name, trainer in trainers.items():
            SILENT.labels(model, name).set(trainer.silent_s)
    return generate_latest().decode()
