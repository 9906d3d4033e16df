"""Topics are made on purpose, and missing ones are errors."""

import pytest

from ekko.schemas.errors import TopicMissing
from ekko.streams.log import Cluster, Partition, TopicSpec, read_all


def test_topics_are_created_once_with_their_settings(cluster: Cluster, topic: str) -> None:
    other = f"{topic}-small"
    cluster.create_topics([TopicSpec(topic, 7), TopicSpec(other, 3, {"max.message.bytes": "2000"})])
    assert cluster.topics()[topic] == 2
    assert cluster.topics()[other] == 3
    assert cluster.topic_settings(other)["max.message.bytes"] == "2000"
    assert int(cluster.topic_settings(topic)["max.message.bytes"]) > 100_000
    cluster.delete_topics([other, f"{topic}-never-made"])
    assert other not in cluster.topics()


def test_a_missing_topic_is_an_error_at_once(cluster: Cluster, topic: str) -> None:
    missing = Partition(f"{topic}-typo", 0)
    with pytest.raises(TopicMissing, match="typo"):
        cluster.bounds([missing])
    with pytest.raises(TopicMissing, match="typo"):
        cluster.reader().assign({missing: 0})
    with pytest.raises(TopicMissing):
        cluster.reader().assign({Partition(topic, 2): 0})
    with pytest.raises(TopicMissing, match="typo"):
        read_all(cluster, missing.topic)
