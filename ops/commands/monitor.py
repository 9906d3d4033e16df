"""`ekko monitor`: request shares and gradient means of every model, for scoring, and verdicts on its health."""

from importlib.util import find_spec
from typing import Annotated

import typer

from ekko.ops.options import Bootstrap, Config
from ekko.schemas.errors import ConfigurationError

app = typer.Typer()


@app.command(epilog="Example: ekko monitor --bootstrap 127.0.0.1:9092 --port 6066")
def monitor(
    *,
    bootstrap: Bootstrap = None,
    config: Config = None,
    host: Annotated[str, typer.Option(help="Address of the web pages /shares/, /health/, /metrics.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the web pages.")] = 6066,
    window: Annotated[float, typer.Option(min=4, help="Seconds over which shares are taken.")] = 60.0,
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between two publications.")] = 2.0,
    label_delay: Annotated[
        float,
        typer.Option(
            min=0, max=3600, help="Seconds by which labels come late: quality is judged so much later, guards are not."
        ),
    ] = 2.0,
) -> None:
    """Run the monitor (a Faust app) until Ctrl-C or SIGTERM.

    It turns the signals of serving, stores and fan-outs into shares for scoring, and judges the health of every model:
    one that it calls corrupt is rolled back by `ekko manager`. Nothing waits for it: without it, fan-outs score with
    the last shares they know, and nobody judges. It starts itself anew when models come or go.
    """
    if find_spec("faust") is None:
        raise ConfigurationError("Faust is not installed", hint="pip install 'ekko-kafka[monitor]'")
    from ekko.ops.monitor_process import run
    from ekko.ops.settings import load
    from ekko.streams.monitor.settings import MonitorSettings

    settings = load(config, bootstrap=bootstrap)
    run(
        settings,
        MonitorSettings(
            window_s=window,
            step_s=window / 4,
            label_delay_s=label_delay,
            publish_interval_s=interval,
            host=host,
            port=port,
            data=settings.data / "monitor",
        ),
    )
