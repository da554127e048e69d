"""The ground that every service stands on; it knows no service."""

import os

# gRPC reads these when it is first imported. Its fork handlers abort, now and then, a child that is only there to exec:
# uvloop makes its children by fork, and so does whoever needs a preexec_fn.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
# And it tells anybody's terminal when a peer goes away, though we say so ourselves.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
