"""Readers of public traces, one file a format, row by row; what a row says less than a request, `replay` adds. No trace
comes with this repository."""
