"""Rows read by other processes through shared memory."""
