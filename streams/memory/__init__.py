"""In-memory twin of the log for seeded simulation."""
