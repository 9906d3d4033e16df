"""What moves: publisher, fan-out, applier, state manager, monitor and the Kafka adapter."""
