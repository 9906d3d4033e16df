"""ops/prometheus and ops/grafana: they name what is exported, scrape what runs, and each alert has its section."""

import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from prometheus_client.metrics import MetricWrapperBase

from ekko.schemas.blocks import Lane
from ekko.schemas.epochs import Verdict
from ekko.streams.fanout import metrics as fanout_metrics
from ekko.streams.fanout.admission import Reason
from ekko.streams.manager import metrics as manager_metrics
from ekko.streams.monitor import metrics as monitor_metrics
from ekko.streams.replica.metrics import StoreMetrics
from tests.ops.compose_file import ROOT, compose, project
from tests.ops.monitoring_files import BOARD, GRAFANA, QUERIES, RULES, SCRAPED, TARGETS, panels, queries_of, read
from tests.ops.promql import Labels, result_labels, selectors

RUNBOOK = "docs/alerts.md"
MONITORING = {"prometheus", "grafana"}
TARGET = frozenset({"job", "instance"})
VALUES = {"lane": set(Lane), "verdict": set(Verdict), "reason": set(Reason)}
"""Labels with a fixed set of values, which a query may name wrongly."""


def exported_by(collectors: list[MetricWrapperBase], target: Labels) -> dict[str, Labels]:
    """Samples by name, with their labels, as a scrape of a process with these metrics gives them."""
    found = {}
    for collector in collectors:
        labels = frozenset(collector._labelnames)
        assert not labels & target, f"{collector._name}: Prometheus would rename {labels & target}"
        for name in _sample_names(collector):
            found[name] = labels | target | ({"le"} if name.endswith("_bucket") else frozenset())
    return found


def _sample_names(collector: MetricWrapperBase) -> list[str]:
    suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(collector._type, [""])
    return [collector._name + suffix for suffix in suffixes]


def exported() -> dict[str, Labels]:
    """All metrics that the jobs of prometheus.yml give, by the processes' own registries."""
    modules = {"fanout": fanout_metrics, "manager": manager_metrics, "monitor": monitor_metrics}
    collectors = {job: in_module(module) for job, module in modules.items()}
    collectors["store"] = list(StoreMetrics().registry._collector_to_names)
    found: dict[str, Labels] = {"up": TARGET}
    for job, target in target_labels().items():
        found |= exported_by(collectors[job], target)
        found["up"] |= target
    return found


def in_module(module: ModuleType) -> list[MetricWrapperBase]:
    return [value for value in vars(module).values() if isinstance(value, MetricWrapperBase)]


def target_labels() -> dict[str, Labels]:
    """By job, the labels that Prometheus adds to all that it scrapes there."""
    return {
        job["job_name"]: TARGET.union(*(group.get("labels", {}) for group in job["static_configs"])) for job in SCRAPED
    }


EXPORTED = exported()


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_an_alert_asks_for_what_is_exported_and_tells_what_it_knows(rule: dict[str, Any]) -> None:
    labels = result_labels(rule["expr"], EXPORTED)
    told = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
    assert told <= labels
    assert set(rule["annotations"]) == {"summary", "runbook"}
    assert rule["labels"]["severity"] in {"page", "ticket"}


@pytest.mark.parametrize("query", QUERIES)
def test_a_panel_asks_for_what_is_exported(query: str) -> None:
    result_labels(query, EXPORTED)


def test_a_panel_names_only_labels_that_its_query_gives() -> None:
    for panel in panels():
        for target, query in zip(panel["targets"], queries_of(panel), strict=True):
            told = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            assert told <= result_labels(query, EXPORTED), f"{panel['title']}: {target['legendFormat']}"


@pytest.mark.parametrize("label", VALUES)
def test_labels_with_fixed_values_are_asked_for_those(label: str) -> None:
    asked = [
        value
        for query in (*(rule["expr"] for rule in RULES), *QUERIES)
        for selector in selectors(query)
        for matcher in selector.matchers.matchers
        if matcher.name == label
        for value in matcher.value.split("|")
    ]
    assert asked
    assert set(asked) <= VALUES[label]


@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        ("ekko_store_redy == 0", "no process exports ekko_store_redy"),
        ('ekko_store_ready{shard="1"} == 0', "no label shard"),
        ("sum by (table) (ekko_store_ready)", "no label table"),
        ("ekko_store_memory_bytes / ekko_store_memory_limit_bytes", "never match"),
        ("ekko_store_ready and on (group) ekko_fanout_failing", "no label group to match by"),
    ],
)
def test_a_wrong_query_is_found(query: str, complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        result_labels(query, EXPORTED)


def test_every_alert_has_its_section_and_every_section_its_alert() -> None:
    names = [rule["alert"] for rule in RULES]
    assert len(set(names)) == len(names)
    headings = re.findall(r"^### (\w+)$", (ROOT / RUNBOOK).read_text(), re.MULTILINE)
    assert headings == names
    assert [rule["annotations"]["runbook"] for rule in RULES] == [f"{RUNBOOK}#{name.lower()}" for name in names]


def test_prometheus_scrapes_every_process_that_serves_metrics_and_nothing_else() -> None:
    serving = {}
    for name, service in project()["services"].items():
        ports = {str(port["target"]) for port in service.get("ports", [])} | set(service.get("expose", []))
        serving |= {f"{name}:{port}": service for port in ports if name not in {"broker", "server"}}
    assert set(TARGETS) == set(serving)
    for target, job in TARGETS.items():
        assert serving[target]["command"][0] == job


def test_a_store_is_scraped_under_the_names_that_it_has() -> None:
    services = project()["services"]
    (stores,) = [job for job in SCRAPED if job["job_name"] == "store"]
    for group in stores["static_configs"]:
        (target,) = group["targets"]
        command = services[target.partition(":")[0]]["command"]
        assert [f"--{label}={value}" for label, value in group["labels"].items()] == command[1:3]


def test_the_board_is_one_row_a_subject_on_a_data_source_of_choice() -> None:
    titles = [panel["title"] for panel in BOARD["panels"] if panel["type"] == "row"]
    assert titles == ["Freshness", "Fan-out", "Stores", "Model states"]
    first, *others = BOARD["templating"]["list"]
    assert (first["name"], first["type"], first["query"]) == ("datasource", "datasource", "prometheus")
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    for panel in panels():
        assert panel["datasource"] == chosen
        assert all(target["datasource"] == chosen for target in panel["targets"])
        assert panel["description"]
    for variable in others:
        metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"]).groups()  # type: ignore[union-attr]
        assert label == variable["name"]
        assert label in EXPORTED[metric]
    asked = " ".join(target["expr"] for panel in panels() for target in panel["targets"])
    used = set(re.findall(r"\$(\w+)", asked))
    assert used == {"__rate_interval", *(variable["name"] for variable in others)}


def test_panels_do_not_overlap() -> None:
    cells = [
        (x, y)
        for position in (panel["gridPos"] for panel in BOARD["panels"])
        for x in range(position["x"], position["x"] + position["w"])
        for y in range(position["y"], position["y"] + position["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])


def test_prometheus_and_grafana_run_when_asked_for_only() -> None:
    assert not MONITORING & set(project()["services"])
    file = project(COMPOSE_PROFILES="monitoring")
    assert set(file["services"]) >= MONITORING
    for name in MONITORING:
        service = file["services"][name]
        assert re.fullmatch(r"[\w/]+:v?\d+\.\d+\.\d+", service["image"])
        assert [port["host_ip"] for port in service["ports"]] == ["127.0.0.1"]
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert "healthcheck" in service
        for mount in service["volumes"]:
            assert mount["type"] == "volume" or (Path(mount["source"]).exists() and mount["read_only"])
    assert compose("--profile", "monitoring", "config", "-q").returncode == 0


def test_grafana_finds_prometheus_and_the_board_where_they_are_mounted() -> None:
    services = project(COMPOSE_PROFILES="monitoring")["services"]
    (source,) = read(GRAFANA / "provisioning" / "datasources" / "prometheus.yml")["datasources"]
    assert source["url"] == f"http://prometheus:{services['prometheus']['ports'][0]['target']}"
    (provider,) = read(GRAFANA / "provisioning" / "dashboards" / "ekko.yml")["providers"]
    mounted = {mount["target"]: Path(mount["source"]) for mount in services["grafana"]["volumes"]}
    home = services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert Path(home).parent == Path(provider["options"]["path"])
    assert mounted[home] == GRAFANA / "ekko.json"
