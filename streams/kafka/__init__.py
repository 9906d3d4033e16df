"""The log on Apache Kafka: the only package that imports confluent_kafka; `streams.log` says what methods promise."""

from ekko.streams.kafka.cluster import KafkaCluster
from ekko.streams.kafka.reader import GROUP

__all__ = ["GROUP", "KafkaCluster"]
