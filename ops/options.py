"""Flags that mean the same in every command. A flag that is left out is None, and `ekko.ops.settings.load` decides."""

from pathlib import Path
from typing import Annotated

import typer

Config = Annotated[Path | None, typer.Option("--config", help="Settings file; EKKO_CONFIG or ekko.toml if left out.")]
Bootstrap = Annotated[
    str | None,
    typer.Option("--bootstrap", metavar="HOST:PORT,...", help="Central Kafka cluster; from the settings if left out."),
]
RegionBootstrap = Annotated[
    str | None,
    typer.Option(
        "--region-bootstrap", metavar="HOST:PORT,...", help="The region's own cluster; the central one if left out."
    ),
]
Region = Annotated[str, typer.Option("--region", help="Name of the serving region.")]
MetricsPort = Annotated[
    int | None, typer.Option("--metrics-port", min=1, max=65535, help="Serve Prometheus metrics at this port.")
]
MetricsHost = Annotated[str, typer.Option("--metrics-host", help="Address on which metrics are served.")]
