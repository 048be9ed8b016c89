#!/usr/bin/env python3
"""How soon the page shows a long run, what it sends, what a browser needs after an hour of live updates, and what a scrape costs.

usage: page_bench.py GRADWARDEND MAKE_RUN [--chromium FILE] [--steps N] [--series N ...]
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "page"))

PLOTTED = "document.body.dataset.drawn > 0 && document.getElementById('groups-map').width > 300"


def fetch(url, gzip=False):
    request = urllib.request.Request(url, headers={"Accept-Encoding": "gzip"} if gzip else {})
    start = time.perf_counter()
    with urllib.request.urlopen(request) as answer:
        size = len(answer.read())
    return size, (time.perf_counter() - start) * 1e3


def long_run(daemon, browser_of, steps):
    start = time.monotonic()
    for part in range(0, steps, 100_000):
        daemon.make("--run", "long", "--first-step", part, "--steps", min(100_000, steps - part), "--attempt", "only",
                    "--first-sequence", part, "--groups", 64)  # fmt: skip
    print(f"{steps} steps with 64 groups stored in {time.monotonic() - start:.0f} s")
    base = f"{daemon.page}api/"
    for what in ("history?run=long&points=1400", "events?run=long", "groups?run=long", "ranks?run=long"):
        sizes = [fetch(base + what, gzip) for gzip in (False, True)]
        print(f"  {what:32} {sizes[0][0] / 1e3:8.1f} kB, gzip {sizes[1][0] / 1e3:6.1f} kB, {min(sizes[0][1], sizes[1][1]):7.1f} ms")
    if browser_of is None:
        return
    times = []
    for _ in range(5):
        browser = browser_of()
        start = time.perf_counter()
        browser.open(f"{daemon.page}#run=long")
        browser.wait_for("document.body.dataset.drawn > 0")
        plotted = time.perf_counter() - start
        browser.wait_for(PLOTTED)
        times.append((plotted, time.perf_counter() - start))
        browser.close()
    print(f"  page shows its plots after {statistics.median(t[0] for t in times):.2f} s, heat maps too {statistics.median(t[1] for t in times):.2f} s")


def hour_of_updates(daemon, browser):
    """3,600 steps at 60 a second: what a run of one step a second tells in an hour."""
    made = daemon.make("--run", "hour", "--steps", 3600, "--steps-per-second", 60, wait=False)
    time.sleep(2)
    browser.open(f"{daemon.page}#run=hour")
    browser.wait_for("document.body.dataset.drawn > 50")
    before = browser.memory_bytes()
    made.wait()
    browser.wait_for("document.getElementById('facts') && document.body.dataset.drawn > 0")
    time.sleep(3)
    print(f"  JavaScript heap after 50 steps {before / 1e6:.1f} MB, after an hour of updates {browser.memory_bytes() / 1e6:.1f} MB")


def scrapes(daemon, wanted):
    made = 0
    for series in wanted:
        while True:
            page = urllib.request.urlopen(f"{daemon.page}metrics").read().decode()
            count = sum(1 for line in page.splitlines() if line and line[0] != "#")
            if count >= series * 0.95:
                break
            daemon.make("--run", f"series-{made}", "--steps", 30, "--groups", 64)
            made += 1
        alone = ingest(daemon, f"alone-{series}")
        stop = threading.Event()
        times = []

        def scrape(times=times, stop=stop):
            while not stop.is_set():
                times.append(fetch(f"{daemon.page}metrics", gzip=True))

        scraper = threading.Thread(target=scrape)
        scraper.start()
        beside = ingest(daemon, f"beside-{series}")
        stop.set()
        scraper.join()
        quiet = sorted(fetch(f"{daemon.page}metrics", gzip=True)[1] for _ in range(200))
        busy = sorted(one[1] for one in times)
        print(f"  {count:6} series: {len(page) / 1e3:7.0f} kB, gzip {times[0][0] / 1e3:5.0f} kB; scrape {quiet[100]:6.1f} ms, p99 {quiet[197]:6.1f} ms; "
              f"during ingest p99 {busy[int(len(busy) * 0.99)]:6.1f} ms of {len(busy)}; 16 reports acknowledged after "
              f"{alone['p50_ms']:.2f} ms, p99 {alone['p99_ms']:.2f} ms, beside endless scrapes {beside['p50_ms']:.2f} ms, "
              f"p99 {beside['p99_ms']:.2f} ms")  # fmt: skip


def ingest(daemon, run):
    """How long batches wait for their acknowledgement, one after another."""
    command = [os.environ["MAKE_RUN"], daemon.grpc, "--run", run, "--steps", "20000", "--groups", "64", "--tell-latency"]
    return json.loads(subprocess.run(command, capture_output=True, check=True, timeout=600).stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("gradwardend")
    parser.add_argument("make_run")
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    parser.add_argument("--steps", type=int, default=2_000_000)
    parser.add_argument("--series", type=int, nargs="+", default=[100, 1000, 10000])
    arguments = parser.parse_args()
    os.environ.update(GRADWARDEND=arguments.gradwardend, MAKE_RUN=arguments.make_run)
    import page_test
    from chromium import Browser

    page_test.DEADLINE_S = 3600
    browser_of = (lambda: Browser(arguments.chromium)) if pathlib.Path(arguments.chromium).exists() else None
    with tempfile.TemporaryDirectory() as folder:
        daemon = page_test.Daemon(folder)
        try:
            scrapes(daemon, arguments.series)
            long_run(daemon, browser_of, arguments.steps)
            if browser_of:
                browser = browser_of()
                hour_of_updates(daemon, browser)
                browser.close()
        finally:
            daemon.process.send_signal(subprocess.signal.SIGTERM)
            daemon.process.wait(60)


if __name__ == "__main__":
    main()
