"""Judging a model's health from signals: buckets of event time, detectors, hysteresis, proposals. Pure."""
