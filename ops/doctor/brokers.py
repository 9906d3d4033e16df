"""Whether brokers are set up for what Ekko does: short transactions, large blocks, no topics by accident."""

from collections.abc import Iterator, Mapping

from ekko.ops.findings import Finding, ok, problem, warning
from ekko.schemas.limits import MAX_BLOCK_BYTES

ABORT_SCAN = "transaction.abort.timed.out.transaction.cleanup.interval.ms"
ABORT_SCAN_MS = 200
ABORT_SCAN_LIMIT_MS = 1_000
TRANSACTION_TIMEOUT_MS = 2_000


def check_broker(number: int, settings: Mapping[str, str]) -> Iterator[Finding]:
    """A broker by its settings in force."""
    yield _abort_scan(number, settings)
    if int(settings.get("transaction.max.timeout.ms", "900000")) < TRANSACTION_TIMEOUT_MS:
        yield problem(
            "broker",
            f"broker {number}: transaction.max.timeout.ms={settings['transaction.max.timeout.ms']} refuses writers of "
            f"{TRANSACTION_TIMEOUT_MS} ms",
            f"set transaction.max.timeout.ms to {TRANSACTION_TIMEOUT_MS} or more",
        )
    if settings.get("auto.create.topics.enable") == "true":
        yield warning(
            "broker",
            f"broker {number}: auto.create.topics.enable=true makes a topic of the wrong shape of every misspelt name",
            "set auto.create.topics.enable=false",
        )
    fetch = int(settings.get("replica.fetch.max.bytes", str(1 << 20)))
    if fetch < MAX_BLOCK_BYTES and int(settings.get("default.replication.factor", "1")) > 1:
        yield warning(
            "broker",
            f"broker {number}: replica.fetch.max.bytes={fetch} copies large blocks one by one",
            f"set replica.fetch.max.bytes to {2 * MAX_BLOCK_BYTES}",
        )


def _abort_scan(number: int, settings: Mapping[str, str]) -> Finding:
    """How long a killed writer's transaction stays open: its time-out plus this scan (measured: DESIGN, law 4)."""
    scan = int(settings.get(ABORT_SCAN, "10000"))
    if scan <= ABORT_SCAN_LIMIT_MS:
        return ok("broker", f"broker {number}: transactions of killed writers are looked for every {scan} ms")
    return problem(
        "broker",
        f"broker {number}: {ABORT_SCAN}={scan}: a writer that is killed holds its partitions for up to "
        f"{(TRANSACTION_TIMEOUT_MS + scan) / 1e3:g} s instead of 2 s, and readers wait so long",
        f"set {ABORT_SCAN}={ABORT_SCAN_MS} in server.properties and restart the broker",
    )
