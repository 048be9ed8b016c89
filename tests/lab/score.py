#!/usr/bin/env python3
"""Scores the diagnosis on the laboratory's recordings, and says how early the first event came.

    tests/lab/score.py GRADWARDEN_COMMAND [DIRECTORY] [--least SHARE]

Each recording is replayed; the cause that `gradwarden replay` names for the whole run is compared with the one that was
switched on. The only number that is fitted is the confidence below which an answer counts as "unknown": for each
recording it is chosen on the recordings of other seeds and other kinds of trainings (leave one seed and architecture
out). "unknown" counts as half wrong. Fails below SHARE.
"""

import collections
import glob
import gzip
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile

CAUSE_FROM = 130
FROM_THE_START = {"learning_rate", "architecture", "configuration"}
LEVELS = [0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7]


def replayed(command, path):
    with tempfile.NamedTemporaryFile(suffix=".jsonl") as log:
        with gzip.open(path) as packed:
            log.write(packed.read())
        log.flush()
        answer = subprocess.run([command, "replay", "--json", log.name], check=True, capture_output=True, text=True)
    return json.loads(answer.stdout)


def number(value):
    return float(value) if value is not None else None


def loss_rose_at(path, since):
    """The first step from which on the loss stays (at the median of 8) half as much again above what it was (at the median of
    32), or is not a number. A single bad batch is not that."""
    with gzip.open(path) as packed:
        rows = [(row["step"], number(row.get("loss"))) for row in map(json.loads, packed)]
    rows = [(step, loss) for step, loss in rows if loss is not None]
    for at in range(8, len(rows)):
        step, loss = rows[at]
        if step < since:
            continue
        before = [x for _, x in rows[max(0, at - 32):at] if math.isfinite(x)]
        after = [x if math.isfinite(x) else math.inf for _, x in rows[at:at + 8]]
        level = 1.5 * statistics.median(before) if before else math.inf
        if not math.isfinite(loss) or (loss > level and statistics.median(after) > level):
            return step
    return None


class Recording:
    def __init__(self, command, path):
        self.name = os.path.basename(path).removesuffix(".jsonl.gz")
        self.kind, self.cause, self.seed = self.name.split("-")
        answer = replayed(command, path)
        found = answer["files"][0].get("diagnosis", {"cause": "healthy", "confidence": 1})
        self.found, self.confidence = found["cause"], found["confidence"]
        since = 0 if self.cause in FROM_THE_START else CAUSE_FROM
        events = [e for e in answer["events"] if e["severity"] != "info" and e["found_step"] >= since]
        self.first_event = min((e["found_step"] for e in events), default=None)
        self.loss_rose = loss_rose_at(path, since) if self.cause != "healthy" else None

    def answer(self, level):
        return "unknown" if self.found != "healthy" and self.confidence < level else self.found


def points(found, cause):
    return 1 if found == cause else 0.5 if found == "unknown" else 0


def level_for(recording, recordings):
    others = [r for r in recordings if r.seed != recording.seed and r.kind != recording.kind]
    return max(LEVELS, key=lambda level: (sum(points(r.answer(level), r.cause) for r in others), -level))


def main():
    arguments = sys.argv[1:]
    least = float(arguments.pop(arguments.index("--least") + 1)) if "--least" in arguments else 0
    arguments = [a for a in arguments if a != "--least"]
    directory = arguments[1] if len(arguments) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "recordings")
    recordings = [Recording(arguments[0], path) for path in sorted(glob.glob(f"{directory}/*.jsonl.gz"))]
    table = collections.Counter()
    total = 0
    for recording in recordings:
        found = recording.answer(level_for(recording, recordings))
        table[recording.cause, found] += 1
        total += points(found, recording.cause)
        if found != recording.cause:
            print(f"  {recording.name}: {found} ({recording.found}, {recording.confidence:.2f})")
    causes = sorted({r.cause for r in recordings})
    columns = causes + ["unknown"]
    print(f"{'true cause':15s}" + "".join(f"{c[:13]:>14s}" for c in columns))
    for cause in causes:
        print(f"{cause:15s}" + "".join(f"{table[cause, c] or '.':>14}" for c in columns))
    share = total / max(1, len(recordings))
    print(f"right: {share:.1%} of {len(recordings)} ('unknown' half)")
    rising = [r for r in recordings if r.loss_rose is not None]
    leads = [r.loss_rose - r.first_event for r in rising if r.first_event is not None]
    early = [lead for lead in leads if lead > 0]
    print(f"lead: the loss rose in {len(rising)} recordings; an event came before that in {len(early)}"
          + (f", by {statistics.median(early):g} steps at the median" if early else "")
          + f"; in the same step in {sum(lead == 0 for lead in leads)}, later in {sum(lead < 0 for lead in leads)},"
          + f" never in {len(rising) - len(leads)}")
    sys.exit(0 if share >= least else 1)


if __name__ == "__main__":
    main()
