"""A real Apache Kafka broker of one node, for demos and tests."""
