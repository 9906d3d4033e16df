"""What ops/prometheus and ops/grafana say, read for the tests."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.ops.compose_file import ROOT

PROMETHEUS, GRAFANA = ROOT / "ops" / "prometheus", ROOT / "ops" / "grafana"


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


SCRAPED: list[dict[str, Any]] = read(PROMETHEUS / "prometheus.yml")["scrape_configs"]
RULES: list[dict[str, Any]] = [rule for group in read(PROMETHEUS / "alerts.yml")["groups"] for rule in group["rules"]]
TARGETS: dict[str, str] = {
    target: job["job_name"] for job in SCRAPED for group in job["static_configs"] for target in group["targets"]
}
"""host:port -> job."""
BOARD: dict[str, Any] = json.loads((GRAFANA / "ekko.json").read_text())


def panels() -> Iterator[dict[str, Any]]:
    return (panel for panel in BOARD["panels"] if panel["type"] != "row")


def queries_of(panel: dict[str, Any]) -> list[str]:
    """A panel's queries as Prometheus gets them."""
    found = [target["expr"].replace("$__rate_interval", "1m") for target in panel["targets"]]
    return [re.sub(r"\$\w+", ".*", query) for query in found]


QUERIES = [query for panel in panels() for query in queries_of(panel)]
