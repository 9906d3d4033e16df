"""The log of one model, `m`, as people look at it: signals and audit, written at times that a test says."""

from ekko.schemas import topics
from ekko.schemas.codec import encode
from ekko.schemas.epochs import Verdict
from ekko.schemas.signals import AuditEntry
from ekko.streams.health.proposals import to_signal
from ekko.streams.health.verdict import Judgement
from ekko.streams.log import Output, Partition, TopicSpec
from ekko.streams.memory.broker import MemoryBroker
from ekko.streams.memory.log import MemoryCluster


class Log(MemoryCluster):
    """Signals and audit of `m`."""

    def __init__(self) -> None:
        self.now_s = 0.0
        super().__init__(MemoryBroker(lambda: self.now_s))
        self.create_topics([TopicSpec(topics.signals("m"), 1), TopicSpec(topics.audit("m"), 1)])

    def write(self, now_s: float, topic: str, value: bytes) -> None:
        self.now_s = now_s
        writer = self.writer()
        writer.send(Output(Partition(topic, 0), value))
        writer.flush(60.0)

    def verdict(self, now_s: float, verdict: Verdict) -> None:
        self.write(now_s, topics.signals("m"), encode(to_signal("m", Judgement(verdict, now_s - 3, "log_loss"))))

    def rollback(self, now_s: float, to: int) -> None:
        entry = AuditEntry("m", "rollback", "state manager", "log_loss", int(now_s * 1e6), {"to": str(to)})
        self.write(now_s, topics.audit("m"), encode(entry))
