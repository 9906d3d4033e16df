"""The store process: appliers, server, membership, health."""
