"""A real Apache Kafka broker of one node, for demos, tests and trying things out."""

from ekko.ops.broker.errors import BrokerError
from ekko.ops.broker.process import Broker

__all__ = ["Broker", "BrokerError"]
