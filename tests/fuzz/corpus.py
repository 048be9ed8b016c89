#!/usr/bin/env python3
"""Writes the seeds of the fuzz targets' corpora that are no plain text: messages, framed or in pieces.

  tests/fuzz/corpus.py    needs protoc; overwrites tests/fuzz/corpus/{report,stored,page,log}/seed-*

The other files in the corpora are logs, configurations and requests as people and programs write them, and inputs that
once broke something.
"""
import pathlib
import struct
import subprocess
import sys
import zlib

HERE = pathlib.Path(__file__).resolve().parent
PROTO = HERE.parent.parent / "proto"


def encode(message, text, file="ingest"):
    """The wire form of a message given as text."""
    command = ["protoc", "-I", PROTO, f"--encode={message}", PROTO / f"gradwarden/v1/{file}.proto"]
    return subprocess.run(command, input=text.encode(), stdout=subprocess.PIPE, check=True).stdout


def request(text):
    return encode("gradwarden.v1.IngestRequest", text)


def piece(data):
    return struct.pack("<H", len(data)) + data


def frame(payload):
    return struct.pack("<II", len(payload), zlib.crc32(payload)) + payload


HISTORY_HEADER = b"GWHIST\r\n" + struct.pack("<II", 1, 0)

HELLO = """hello { run: "run" attempt: "20240101T000000Z-a" world_size: 2 groups: "layer0" groups: "layer1" host: "node7"
  started_unix_ns: 1700000000000000000 guard { max_norm: 1 window: 100 warmup: 20 } }"""


def report(sequence, norm="1.5", decision="APPLY", reason="WITHIN_LIMITS", coefficient=1, more=""):
    return f"""reports {{ sequence: {sequence} step: {sequence + 99} time_unix_ns: {1700000000000000000 + sequence}
      grad_norm: {norm} clip_coefficient: {coefficient} decision: DECISION_{decision} reason: REASON_{reason} {more} }}"""


GROUPS = """loss: 2.5 learning_rate: 0.0003 loss_scale: 65536 batch_ids: "b-17" max_abs: 0.25 element_count: 1000
  zero_count: 3 group_norms: 1 group_norms: 1.1 group_max_abs: 0.25 group_max_abs: 0.2 group_nan_counts: [0, 0]
  group_inf_counts: [0, 0] group_zero_counts: [1, 2] shard_norms: [1, 1.2] local_norms: [1, 1.3]
  local_non_finite_counts: [0, 0]"""
NAN = """nan_count: 4 element_count: 1000 local_norms: [1, nan] local_non_finite_counts: [0, 4]
  non_finite { tensor: "layer0.w" group: 0 rank: 1 index: 77 nan_count: 4 local: true }"""
AUDIT = """audited_replicas: 3 mismatches { tensor: "layer1.b" group: 1 signal: "parameter" index: 128 element_count: 64
  ranks: 1 rank_count: 1 relative_difference: 0.01 declared_identical: true }"""
SIGNALS = """gradient_noise_scale: 3.25 checkpoint_steps: [100, 200] learning_rate_factor: 0.5 broken_rules: [6, 9]
  signals { name: "parameter" norm: 7.5 max_abs: 1 element_count: 1000 group_norms: [5, 5.6] }"""
FLIGHT = """flight { tensors { name: "layer0.w" element_count: 500 } tensors { name: "layer1.b" index: 500 element_count: 500 }
  steps { step: 99 grad_norm: 1 decision: DECISION_APPLY norms: [1, 1] max_abs: [0.5, 0.5] }
  steps { step: 100 grad_norm: nan decision: DECISION_SKIP reason: REASON_NON_FINITE norms: [1, nan] max_abs: [0.5, 0.5]
    non_finite_counts: [0, 4] } steps_left_out: 2 }"""


def batch(*reports):
    return "batch { " + " ".join(reports) + " }"


def report_seeds():
    spike = [report(i, "40" if i == 30 else str(1 + i % 7 / 10), more="loss: 2") for i in range(1, 45)]
    streams = {
        "hello": [HELLO],
        "quiet": [HELLO, batch(report(1, more=GROUPS), report(2, more=GROUPS))],
        "clip": [HELLO, batch(report(1, "9", "CLIP", "MAX_NORM", 0.1111, "clip_threshold: 1"))],
        "nan": [HELLO, batch(report(1), report(2, "nan", "SKIP", "NON_FINITE", more=NAN))],
        "overflow": [HELLO, batch(report(1, "inf", "SKIP", "LOSS_SCALE_OVERFLOW", more="inf_count: 9 loss_scale: 32768"))],
        "audit": [HELLO, batch(report(1, more=AUDIT), report(2, more=SIGNALS))],
        "flight": [HELLO, batch(report(1, "nan", "SKIP", "NON_FINITE", more=NAN + FLIGHT))],
        "shadow": [HELLO, batch(report(1, "90", "SKIP", "ROLLING_MEAN", more="shadow: true rolling_mean: 1 threshold: 3"))],
        "spike": [HELLO, batch(*spike)],
        "twice": [HELLO, batch(report(1), report(2)), batch(report(2), report(3)), batch(report(9), report(3), report(4))],
        "other-rank": [HELLO.replace("world_size: 2", "world_size: 2 rank: 1"), batch(report(1, "nan", "SKIP", "NON_FINITE", more=NAN))],
        "bad": [HELLO, batch(report(0), report(1, "-1"), report(2, coefficient=7), report(3, "1", "SKIP", "NON_FINITE"))],
        "heartbeat": [HELLO, "heartbeat { step: 7 phase: PHASE_TRAINING time_unix_ns: 1700000000000000000 pending_reports: 3 }"],
        "goodbye": [HELLO, batch(report(1)), "goodbye { last_step: 100 dropped_reports: 2 checkpoint_steps: [50, 100] }"],
        "no-hello": [batch(report(1, more=GROUPS))],
    }
    return {name: b"".join(piece(request(text)) for text in texts) for name, texts in streams.items()}


def guard_state(window=100, level=20):
    """Of a guard that has accepted 30 steps of norm 1."""
    spike = struct.pack("<5I", window, 20, level, 30, 30) + struct.pack(f"<{window}d", *([1.0] * 30 + [0.0] * (window - 30)))
    pending = struct.pack(f"<I{level}d", 0, *[0.0] * level)
    average = struct.pack("<ddI", 1.0, 0.01, 30)
    return b"GWGS" + struct.pack("<I", 1) + spike + pending + average + pending + struct.pack("<I", 0)


def stored_seeds():
    hello, first, second = request(HELLO), request(batch(report(1), report(2))), request(batch(report(3)))
    whole = HISTORY_HEADER + frame(hello) + frame(first) + frame(second)
    wrong = bytearray(whole)
    wrong[-1] ^= 1
    return {
        "history": b"0" + whole,
        "history-empty": b"0" + HISTORY_HEADER,
        "history-torn": b"0" + whole[:-5],
        "history-checksum": b"0" + bytes(wrong),
        "history-long": b"0" + HISTORY_HEADER + frame(hello) + struct.pack("<II", 1 << 31, 0) + frame(first),
        "history-newer": b"0" + b"GWHIST\r\n" + struct.pack("<II", 9, 0) + frame(hello),
        "history-text": b"0step,loss\n1,2\n",
        "spool": b"1" + piece(hello) + piece(first) + piece(second),
        "spool-raw": b"1" + piece(hello) + piece(first) * 7 + whole,
        "spool-back": b"1" + piece(hello) + piece(second) + piece(first),
        "spool-other-run": b"1" + piece(request(HELLO.replace('"run"', '"other"'))) + piece(first),
        "spool-no-hello": b"1" + piece(first),
        "state-empty": b"2",
        "state-short": b"2" + struct.pack("<IQQ", 1, 3, 4),
        "checkpoint": b"30" + guard_state(),
        "checkpoint-other-window": b"30" + guard_state(window=50),
        "checkpoint-unsummed": b"31" + guard_state(),
    }


def page_seeds():
    hello = piece(encode("gradwarden.v1.Hello", HELLO[HELLO.index("{") + 1 : HELLO.rindex("}")]))

    def rows(*reports):  # of steps 100 and on
        return piece(encode("gradwarden.v1.ReportBatch", " ".join(reports)))

    def event(kind, peak, more=""):
        text = f'''id: 1 revision: 1 run: "run" attempt: "a1" kind: "{kind}" start_step: {peak} peak_step: {peak} {more}'''
        return b"1" + piece(encode("gradwarden.v1.Event", text, "query"))

    groups = b"0\x64\x65" + rows(report(1, more=GROUPS), report(2, more=GROUPS))
    ill = b"0\x66\x66" + rows(report(3, "nan", "SKIP", "NON_FINITE", more=NAN))
    return {
        "steps": hello + b"\x03\x64\x66" + groups + ill + event("non_finite", 102, "end_step: 102 rank: 1"),
        "points": hello + b"\x40\x00\xb0" + groups + b"2\x00\x3f\x40\x40\x01\x02" + b"2\x40\x7f\x40\x3f\x01\x09",
        "contradiction": hello + b"\x03\x66\x64" + b"0\x02\x01" + rows(report(9, more=GROUPS)) + event("grad_spike", 3),
        "no-hello": piece(b"\xff\xff") + b"\x03\x64\x66" + groups,
        "no-rows": hello + b"\x00\x00\x00",
        "signals": hello + b"\x02\x64\x65" + b"0\x64\x65" + rows(report(1, more=AUDIT), report(2, more=SIGNALS)),
        "cut": hello + b"\x02\x64\x65" + b"0\x64\x65" + piece(rows(report(1, more=GROUPS))[2:40]) + event("loss_spike", 100),
        "overlap": hello + b"\x08\x64\x68" + groups + ill + groups + ill + event("grad_spike", 101, "end_step: 99"),
        "far": hello + b"\x03\x01\xff" + b"0\x01\xff" + rows(report(1), report(2)) + event("level_shift", 1 << 62),
    }


def scalar(step, tag, value):
    """A TensorBoard event with one scalar."""
    def field(number, data):
        return bytes([number << 3 | 2, len(data)]) + data
    entry = field(1, tag) + b"\x15" + struct.pack("<f", value)
    return b"\x09" + bytes(8) + b"\x10" + bytes([step]) + field(5, field(1, entry))


def log_seeds():
    events = b"".join(piece(scalar(step, b"train/loss", 2.0) ) + piece(scalar(step, b"train/grad_norm", 1.0))
                      for step in range(1, 6))
    return {"events": b"7" + piece(b"\x1a\x0dbrain.Event:2") + events, "events-odd": b"7" + piece(b"\x12\x34") + events[:-3]}


def main():
    for name, seeds in (("report", report_seeds()), ("stored", stored_seeds()), ("page", page_seeds()), ("log", log_seeds())):
        folder = HERE / "corpus" / name
        folder.mkdir(parents=True, exist_ok=True)
        for seed, data in seeds.items():
            (folder / f"seed-{seed}").write_bytes(data)
    return 0


if __name__ == "__main__":
    sys.exit(main())
