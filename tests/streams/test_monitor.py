"""Shares from signals, and librdkafka settings in Faust's words."""

import ssl
from collections import defaultdict

import faust
import pytest

from ekko.schemas.declarations import ModelDeclaration
from ekko.schemas.errors import ConfigurationError, FormatError
from ekko.schemas.signals import Signal
from ekko.streams.monitor.app import make_app
from ekko.streams.monitor.settings import MonitorSettings, broker_settings
from ekko.streams.monitor.shares import Measure, contributions, needs_restart, shares, table_key

MODELS = {name: ModelDeclaration(name, incarnation=number) for number, name in enumerate(("ctr", "dlrm"))}


def signal(metric: str, value: float, count: int = 1, cohort: str = "live", model: str = "ctr") -> Signal:
    return Signal(model, "east", "serving/a", metric, value, count, 0, cohort)


def totals(*signals: Signal) -> dict[tuple[str, Measure], float]:
    sums: dict[tuple[str, Measure], float] = defaultdict(float)
    for one in signals:
        for measure, amount in contributions(one):
            sums[one.model, measure] += amount
    return sums


def test_shares_follow_requests_and_gradients() -> None:
    sums = totals(
        signal("requests", 30),
        signal("requests", 10, model="dlrm"),
        signal("gradient_norm", 6.0, 4),
        signal("gradient_norm", 2.0, 4),
    )
    ctr, dlrm = shares(MODELS, lambda model, measure: sums[model, measure], 5)
    assert (ctr.request_share, ctr.mean_gradient, ctr.incarnation, ctr.written_us) == (0.75, 1.0, 0, 5)
    assert (dlrm.request_share, dlrm.mean_gradient, dlrm.incarnation) == (0.25, 0.0, 1)


def test_without_request_counts_models_are_equals_and_silence_is_not_published() -> None:
    sums = totals(signal("gradient_norm", 6.0, 4))
    (only,) = shares(MODELS, lambda model, measure: sums[model, measure], 0)
    assert (only.model, only.request_share, only.mean_gradient) == ("ctr", 0.5, 1.5)
    assert shares(MODELS, lambda _model, _measure: 0.0, 0) == []


def test_baseline_requests_and_other_metrics_do_not_count() -> None:
    assert contributions(signal("requests", 5, cohort="baseline")) == []
    assert contributions(signal("log_loss", -5)) == []


@pytest.mark.parametrize(
    "bad",
    [
        signal("requests", float("nan")),
        signal("requests", float("inf")),
        signal("gradient_norm", -1),
        signal("requests", 1, -1),
    ],
)
def test_values_that_no_honest_source_sends_are_refused(bad: Signal) -> None:
    with pytest.raises(FormatError, match="model ctr"):
        contributions(bad)


def test_names() -> None:
    assert table_key("ctr", Measure.REQUESTS) == "ctr/requests"
    assert needs_restart(["a"], ["a", "b"])
    assert not needs_restart(["b", "a"], ["a", "b"])


def test_librdkafka_settings_are_translated() -> None:
    kafka = {
        "security.protocol": "sasl_plaintext",
        "sasl.mechanisms": "SCRAM-SHA-512",
        "sasl.username": "ekko",
        "sasl.password": "secret",
        "client.id": "m1",
    }
    broker = broker_settings("a:9092, b:9092", kafka)
    assert broker.urls == ("kafka://a:9092", "kafka://b:9092")
    assert (broker.tls, broker.mechanism) == (False, "SCRAM-SHA-512")
    app = make_app(broker, MonitorSettings())
    credentials = app.conf.broker_credentials
    assert isinstance(credentials, faust.SASLCredentials)
    assert (credentials.username, credentials.password, credentials.ssl_context) == ("ekko", "secret", None)
    assert app.conf.broker_client_id == "m1"
    assert [str(url) for url in app.conf.broker] == ["kafka://a:9092", "kafka://b:9092"]


def test_tls_needs_no_more_than_a_protocol() -> None:
    app = make_app(broker_settings("a:9093", {"security.protocol": "SSL"}), MonitorSettings())
    credentials = app.conf.broker_credentials
    assert isinstance(credentials, faust.SSLCredentials)
    assert isinstance(credentials.context, ssl.SSLContext)


def test_what_faust_cannot_take_is_refused_by_name() -> None:
    with pytest.raises(ConfigurationError, match=r"linger\.ms, socket\.nagle\.disable") as refused:
        broker_settings("a:1", {"linger.ms": "5", "socket.nagle.disable": "true", "client.id": "x"})
    assert "ssl.ca.location" in refused.value.hint
    with pytest.raises(ConfigurationError, match=r"sasl\.mechanism = OAUTHBEARER"):
        broker_settings("a:1", {"security.protocol": "SASL_SSL", "sasl.mechanism": "OAUTHBEARER"})
