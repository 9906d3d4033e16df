"""Commands, the local broker, settings and set-up."""
