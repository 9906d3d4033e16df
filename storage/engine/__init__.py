"""Rows in memory: index, arena, epoch journals."""
