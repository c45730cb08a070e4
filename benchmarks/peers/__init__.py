"""The same works by others: a file for each of them. Only these may import what is no requirement of the project."""
