"""Settings of topics that a test changes while they are in use."""

from confluent_kafka import KafkaError, Message, Producer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from tests.waiting import wait_for


def limit_records(bootstrap: str, topic: str, size: int) -> None:
    """Return once the topic refuses records of twice this size: the broker goes by a setting after it has told it."""
    entry = ConfigEntry("max.message.bytes", str(size), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.incremental_alter_configs([resource])[resource].result(120)
    wait_for(lambda: _is_refused(bootstrap, topic, 2 * size), what=f"{topic} refuses what is larger than {size} bytes")


def lift_limit(bootstrap: str, topic: str) -> None:
    """Take records of any size again, soon."""
    entry = ConfigEntry("max.message.bytes", None, incremental_operation=AlterConfigOpType.DELETE)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.incremental_alter_configs([resource])[resource].result(120)


def _is_refused(bootstrap: str, topic: str, size: int) -> bool:
    """Whether a record of this size is; one that is not, is never committed."""
    errors: list[KafkaError | None] = []
    producer = Producer({"bootstrap.servers": bootstrap, "transactional.id": f"tries.{topic}"})
    producer.init_transactions(120)
    producer.begin_transaction()

    def told(error: KafkaError | None, _message: Message) -> None:
        errors.append(error)

    producer.produce(topic, bytes(size), partition=0, on_delivery=told)
    producer.flush(120)
    producer.abort_transaction(120)
    (error,) = errors
    return error is not None and error.code() == KafkaError.MSG_SIZE_TOO_LARGE
