"""python -m mesh.probe [HOST:PORT [SERVICE]]: exit 0 when the health service says SERVING, for container checks."""

import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

TIMEOUT_S = 2.0
UNREACHABLE, NOT_SERVING = 3, 4  # as grpc_health_probe has them


def probe(target: str, service: str = "") -> int:
    """The exit code: 0 serving, 3 unreachable, 4 anything else."""
    with grpc.insecure_channel(target, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            request = health_pb2.HealthCheckRequest(service=service)
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            gone = error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
            return UNREACHABLE if gone else NOT_SERVING
    return 0 if answer.status == health_pb2.HealthCheckResponse.SERVING else NOT_SERVING


if __name__ == "__main__":
    sys.exit(probe(*(sys.argv[1:] or ["127.0.0.1:50051"])))
