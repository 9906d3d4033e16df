"""The vocabulary: values, formats, limits and errors; no I/O, no clock."""
