"""One process that imports the wheel beside torch, grpcio and protobuf in the given order and uses them all at once.

    wheel_clash.py ORDER DAEMON RUN GRADWARDEN     ORDER: for example torch,grpc,gradwarden; "global:" before it: RTLD_GLOBAL
                                                   GRADWARDEN: the command

Prints "ok", or raises.
"""

import importlib
import json
import os
import subprocess
import sys
import time
from concurrent import futures

DEADLINE_S = 60
STEPS = 200


def import_all(order):
    if order.startswith("global:"):
        sys.setdlopenflags(os.RTLD_NOW | os.RTLD_GLOBAL)
    for name in order.removeprefix("global:").split(","):
        importlib.import_module(name)


def serve(grpc, struct_pb2):
    """A server of grpcio's that answers a Struct with the sum of its fields in one more."""

    def add(request, context):
        answer = struct_pb2.Struct()
        answer["sum"] = sum(request.fields[name].number_value for name in request.fields)
        return answer

    handler = grpc.unary_unary_rpc_method_handler(
        add, request_deserializer=struct_pb2.Struct.FromString, response_serializer=struct_pb2.Struct.SerializeToString
    )
    server = grpc.server(futures.ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Sums", {"Add": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, port


def check_libraries():
    """That what was loaded for gradwarden is the wheel's, none of the system's."""
    with open("/proc/self/maps", encoding="utf-8") as maps:
        loaded = {line.split()[-1] for line in maps if ".so" in line}
    kinds = ("libgrpc", "libprotobuf", "libabsl", "libupb", "libhwy")
    ours = [path for path in loaded if "gradwarden.libs" in path and any(kind in path for kind in kinds)]
    systems = [path for path in loaded if path.startswith("/usr/") and any(kind in path for kind in kinds)]
    if not ours or systems:
        raise AssertionError(f"from the wheel: {ours}; from the system: {systems}")


def wait_until_stored(command, daemon, run):
    """close() waits a second and no more: on a slow machine only the goodbye is to be left for it."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        show = [command, "show", run, "--daemon", daemon, "--json"]
        shown = subprocess.run(show, capture_output=True, text=True, timeout=DEADLINE_S)
        # It fails while the daemon does not know the run yet.
        stored = int(json.loads(shown.stdout)["summary"].get("reports", 0)) if shown.returncode == 0 else 0
        if stored >= STEPS:
            return
        if time.monotonic() > deadline:
            raise AssertionError(f"only {stored} of {STEPS} reports are stored: {shown.stderr}")
        time.sleep(0.05)


def main():
    order, daemon, run, command = sys.argv[1:]
    import_all(order)
    import gradwarden
    import grpc
    import torch
    from google.protobuf import struct_pb2

    check_libraries()
    server, port = serve(grpc, struct_pb2)
    weight = torch.nn.Parameter(torch.zeros(64))
    weight.grad = torch.ones(64)
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        add = channel.unary_unary(
            "/test.Sums/Add",
            request_serializer=struct_pb2.Struct.SerializeToString,
            response_deserializer=struct_pb2.Struct.FromString,
        )
        guard = gradwarden.Guard(daemon=daemon, run=run)
        guard.bind([("weight", weight)])
        for step in range(STEPS):
            outcome = guard.step(step=step, loss=1.0)
            if abs(outcome.grad_norm - 8) > 1e-6:
                raise AssertionError(f"norm {outcome.grad_norm}")
            request = struct_pb2.Struct()
            request["a"], request["b"] = step, 1
            if add(request)["sum"] != step + 1:
                raise AssertionError("grpcio answered wrongly")
        wait_until_stored(command, daemon, run)
        if not guard.close():
            raise AssertionError("reports were lost")
    server.stop(None)
    print("ok")


main()
