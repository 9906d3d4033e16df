"""Labels that come some seconds after their requests, through a real broker and a real monitor."""

import time

from ekko.ops.broker import Broker
from ekko.schemas import topics
from ekko.schemas.codec import Codec, encode
from ekko.schemas.declarations import ModelDeclaration
from ekko.schemas.epochs import Verdict
from ekko.schemas.signals import Signal
from ekko.streams.kafka import KafkaCluster
from ekko.streams.log import Output, Partition
from ekko.streams.manager.automatic import ProposalReader
from tests.ports import free_port
from tests.streams.monitor_child import Clock, Signals, monitor, page
from tests.waiting import PATIENCE_S

LABELS_LATE_S = 8


def test_labels_that_come_late_are_judged_by_the_time_of_their_requests(
    kafka: KafkaCluster, broker: Broker, topic_prefix: str
) -> None:
    """What was served badly since a moment is told as of that moment, though it is known some seconds later only."""
    signals, port = Signals(kafka, broker.bootstrap), free_port()
    name = signals.declare(f"{topic_prefix}-y"[-60:].lstrip("-0123456789")).name
    partition = Partition(topics.signals(name), 0)
    proposals = ProposalReader(signals.cluster, Codec(), ModelDeclaration(name))
    with monitor(broker.bootstrap, port, "--label-delay", str(LABELS_LATE_S + 10)):
        page(port, "health")
        signals.wait_until_heard(name)
        clock, deadline = Clock(), time.monotonic() + PATIENCE_S
        broken_s = clock.now_s
        clock.now_s -= LABELS_LATE_S
        while time.monotonic() < deadline:
            for event_s in clock.ticks(-LABELS_LATE_S):
                for cohort, loss in (("live", 0.9 if event_s > broken_s else 0.5), ("baseline", 0.5)):
                    sample = Signal(name, "e", "s/1", "log_loss", loss * 99, 99, int(event_s * 1e6), cohort)
                    signals.send(Output(partition, encode(sample)))
            time.sleep(0.5)
            proposal = proposals.poll()
            if proposal is not None and proposal.verdict is Verdict.CORRUPT:
                assert -1.0 <= proposal.since_us / 1e6 - broken_s < 6.0
                health = page(port, "health")
                assert isinstance(health, dict)
                assert health["late_signals"] == 0
                break
        else:
            raise AssertionError(f"not corrupt within {PATIENCE_S} s")
    proposals.close()
