"""Logs and metrics: how they look, and the counters that every RPC feeds."""

import logging
import sys

import structlog
from prometheus_client import Counter, Histogram

HANDLED = Counter("grpc_server_handled_total", "RPCs completed.", ["grpc_service", "grpc_method", "grpc_code"])
SECONDS = Histogram("grpc_server_handling_seconds", "Seconds an RPC took.", ["grpc_service", "grpc_method"])


def configure_logs(service: str, level: str) -> None:
    """JSON lines on stderr, or coloured ones on a terminal; every line names the service."""
    pretty = sys.stderr.isatty()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.dev.ConsoleRenderer() if pretty else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(service=service)
