"""What the monitor needs to know, and librdkafka settings in the words of Faust's driver (pure, no Faust)."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ekko.schemas.errors import ConfigurationError

GROUP = "ekko-monitor"
"""Consumer group of all monitors of a cluster."""

TRANSLATED = (
    "client.id",
    "sasl.mechanism",
    "sasl.mechanisms",
    "sasl.password",
    "sasl.username",
    "security.protocol",
    "ssl.ca.location",
    "ssl.certificate.location",
    "ssl.key.location",
    "ssl.key.password",
)
"""librdkafka settings that have a counterpart in aiokafka, on which Faust rests."""

_PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")


@dataclass(frozen=True, slots=True)
class MonitorSettings:
    """How the monitor runs.

    Attributes:
        window_s, step_s: the sliding window over which shares are taken, and by how much it moves.
        bucket_s, grace_s: stretches of event time in which health is judged, and how long after its end each one is.
        label_delay_s: how late labels come: what needs them is judged so long after the end of a bucket. The guards
            that need none do not wait for it.
        publish_interval_s: seconds between two publications of all shares.
        catalogue_interval_s: how often new models are looked for.
        session_timeout_s: after a kill -9 the next monitor, or a standby, gets the partitions after so long. Static
            membership would be faster there, but a broker gives a member that returns its old topics, not its new ones.
        stall_s: while signals wait and none is taken for so long, the process ends with an error, to be started again.
        host, port: web pages.
        data: folder that Faust makes for itself; nothing in it is needed again.
    """

    window_s: float = 60.0
    step_s: float = 15.0
    bucket_s: float = 1.0
    grace_s: float = 2.0
    label_delay_s: float = 2.0
    publish_interval_s: float = 2.0
    catalogue_interval_s: float = 5.0
    session_timeout_s: float = 6.0
    stall_s: float = 20.0
    host: str = "127.0.0.1"
    port: int = 6066
    data: Path = Path("ekko-data/monitor")


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """A cluster in the words of Faust's driver.

    Attributes:
        urls: `kafka://host:port`, one a bootstrap server.
        tls: whether connections are encrypted; `ca_file` None means the system's authorities.
        certificate_file, key_file, key_password: the client's own certificate, or None.
        mechanism: SASL mechanism, or None for no authentication.
    """

    urls: tuple[str, ...]
    client_id: str = "ekko-monitor"
    tls: bool = False
    ca_file: str | None = None
    certificate_file: str | None = None
    key_file: str | None = None
    key_password: str | None = None
    mechanism: str | None = None
    username: str = ""
    password: str = ""


def broker_settings(bootstrap: str, kafka: Mapping[str, str]) -> BrokerSettings:
    """Translate librdkafka's settings.

    Raises:
        ConfigurationError: settings that Faust's driver cannot take, all of them named.
    """
    unknown = sorted(set(kafka) - set(TRANSLATED))
    if unknown:
        raise ConfigurationError(
            f"the monitor cannot take these Kafka settings: {', '.join(unknown)}",
            hint=f"Faust's driver knows {', '.join(TRANSLATED)}; the monitor can have its own --config",
        )
    protocol = _one_of("security.protocol", kafka.get("security.protocol", "PLAINTEXT").upper(), _PROTOCOLS)
    authenticated = protocol.startswith("SASL")
    mechanism = kafka.get("sasl.mechanism") or kafka.get("sasl.mechanisms") or "PLAIN"
    return BrokerSettings(
        urls=tuple(f"kafka://{server.strip()}" for server in bootstrap.split(",") if server.strip()),
        client_id=kafka.get("client.id", "ekko-monitor"),
        tls=protocol.endswith("SSL"),
        ca_file=kafka.get("ssl.ca.location"),
        certificate_file=kafka.get("ssl.certificate.location"),
        key_file=kafka.get("ssl.key.location"),
        key_password=kafka.get("ssl.key.password"),
        mechanism=_one_of("sasl.mechanism", mechanism.upper(), _MECHANISMS) if authenticated else None,
        username=kafka.get("sasl.username", ""),
        password=kafka.get("sasl.password", ""),
    )


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise ConfigurationError(
            f"the monitor cannot take {name} = {value}", hint=f"Faust's driver knows {', '.join(choices)}"
        )
    return value
