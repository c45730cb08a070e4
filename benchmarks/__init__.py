"""Measurements against raw sockets on the same machine. They report; they gate nothing by absolute time."""
