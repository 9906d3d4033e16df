"""What the monitor tells Prometheus."""

from collections.abc import Mapping

from prometheus_client import Gauge, generate_latest

from ekko.streams.health.trainers import SilentTrainer

SILENT = Gauge(
    "ekko_monitor_silent_trainer_seconds",
    "For how long a trainer has published nothing, while it counts as silent.",
    ["model", "trainer"],
)
LATE = Gauge(
    "ekko_monitor_late_signals",
    "Signals since the start that came after their second was judged, and count for nothing: see --label-delay.",
)


def page(silent: Mapping[str, Mapping[str, SilentTrainer]], late: int) -> str:
    """All figures in Prometheus's text format, with the trainers that are silent now, by model and name."""
    LATE.set(late)
    SILENT.clear()
    for model, trainers in silent.items():
        for name, trainer in trainers.items():
            SILENT.labels(model, name).set(trainer.silent_s)
    return generate_latest().decode()
