"""One region's parameters: arena, index, journals, store, server and client."""
