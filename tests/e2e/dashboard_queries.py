#!/usr/bin/env python3
"""Every query of the dashboard and of the rules returns data in a real Prometheus that scrapes a real gradwardend.

The daemon gets a run in which everything happens: 3 ranks, groups, clipped, skipped and non-finite steps, a loss
scale, a rank that stands out, replicas that differ, a checkpoint, other signals. Then each panel's queries, the
annotation's, the variables' and each rule's expression are asked; those that are rightly empty while all is well are
only checked to be valid, and are listed. Standard library only.

usage: dashboard_queries.py SOURCE_DIRECTORY GRADWARDEND RUN_MAKER PROMETHEUS
       RUN_MAKER: the program that makes the run (takes host:port)
"""

import json
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

DEADLINE_S = 120
PANELS_S = 20
# Nothing is wrong with this daemon, so these have no value; but they must be valid.
EMPTY_WHEN_WELL = ("unless on (run, job)",)


def get(url):
    with urllib.request.urlopen(url, timeout=30) as answer:
        return json.load(answer)


def ask(prometheus, query):
    url = f"{prometheus}/api/v1/query?" + urllib.parse.urlencode({"query": query})
    answer = get(url)
    return answer["data"]["result"]


def wait_for(what, condition):
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            found = condition()
        except OSError:
            found = None
        if found:
            return found
        if time.monotonic() > deadline:
            raise SystemExit(f"{what}: not within {DEADLINE_S} s")
        time.sleep(0.1)


def panel_queries(dashboard):
    """(where, query) of each panel and annotation, with the variables filled in."""
    found = []
    for panel in dashboard["panels"]:
        found += [(f"panel {panel['title']!r}", target["expr"]) for target in panel.get("targets", [])]
    found += [(f"annotation {one['name']!r}", one["expr"]) for one in dashboard["annotations"]["list"]]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            selector = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["definition"])
            found.append((f"variable {variable['name']!r}", f"count by ({selector[2]}) ({selector[1]})"))
    return [(where, filled(query)) for where, query in found]


def filled(query):
    for name, value in (("$job", ".*"), ("$run", ".*"), ("$__rate_interval", "1m")):
        query = query.replace(name, value)
    query = re.sub(r"offset \d+[mh]", "offset 1s", query)
    return re.sub(r"\[(\d+[mh])\]", "[1m]", query)  # the run is short


def rule_queries(prometheus):
    groups = get(f"{prometheus}/api/v1/rules")["data"]["groups"]
    return [(rule["type"], rule["name"], rule["query"], rule["health"]) for group in groups for rule in group["rules"]]


def start_daemon(program, folder, started):
    ports = folder / "ports.json"
    config = folder / "gradwardend.yaml"
    # A sink that takes nothing, for the metrics of sinks.
    config.write_text(json.dumps({"alerts": {"sinks": [{"type": "webhook", "url": "http://127.0.0.1:1/"}]}}))
    started.append(
        subprocess.Popen(
            [program, "--data-dir", folder / "data", "--grpc-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0",
             "--ports-file", ports, "--log-level", "off", "--config", config]
        )
    )  # fmt: skip
    return wait_for("gradwardend", lambda: ports.exists() and ports.stat().st_size and json.loads(ports.read_text()))


def start_prometheus(program, folder, rules, http_port, started):
    config = {
        "global": {"scrape_interval": "200ms", "evaluation_interval": "500ms"},
        "rule_files": [str(rules)],
        "scrape_configs": [{"job_name": "gradwarden", "static_configs": [{"targets": [f"127.0.0.1:{http_port}"]}]}],
    }
    (folder / "prometheus.yaml").write_text(json.dumps(config))
    log = (folder / "prometheus.log").open("w")
    arguments = [f"--config.file={folder}/prometheus.yaml", f"--storage.tsdb.path={folder}/tsdb", "--log.level=info"]
    started.append(subprocess.Popen([program, *arguments, "--web.listen-address=127.0.0.1:0"], stderr=log))

    def address():
        told = re.search(r"Listening on.*?address=(127\.0\.0\.1:\d+)", (folder / "prometheus.log").read_text())
        return f"http://{told[1]}" if told else None

    prometheus = wait_for("Prometheus", address)
    wait_for("Prometheus to be ready", lambda: urllib.request.urlopen(f"{prometheus}/-/ready", timeout=5).status == 200)
    return prometheus


def without_data(prometheus, queries):
    """Those that return nothing for PANELS_S: a rate needs two scrapes, which may be late. All wait for the same seconds."""
    deadline = time.monotonic() + PANELS_S
    while queries := [(where, query) for where, query in queries if not ask(prometheus, query)]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.5)
    return queries


def check(prometheus, dashboard):
    queries = panel_queries(dashboard)
    failed = [f"{where}: no data: {query}" for where, query in without_data(prometheus, queries)]
    checked = len(queries)
    rules = wait_for("the rules to be evaluated", lambda: all_evaluated(prometheus))
    for kind, name, query, health in rules:
        checked += 1
        if health != "ok":
            failed.append(f"{kind} rule {name}: {health}: {query}")
        # An alert's metric must be there, also where its condition is not met.
        for metric in set(re.findall(r"gradwarden_\w+", re.sub(r"\w+:gradwarden_\w+:?\w*", "", query))):
            if not ask(prometheus, metric):
                failed.append(f"{kind} rule {name}: {metric} is not there")
        if kind == "recording" and not ask(prometheus, name) and not any(part in query for part in EMPTY_WHEN_WELL):
            failed.append(f"recording rule {name}: no data")
    return failed, checked


def all_evaluated(prometheus):
    rules = rule_queries(prometheus)
    return rules if rules and all(rule[3] != "unknown" for rule in rules) else None


def main():
    if len(sys.argv) != 5:
        raise SystemExit(__doc__)
    source, daemon, run_maker, program = pathlib.Path(sys.argv[1]), *sys.argv[2:]
    dashboard = json.loads((source / "deploy/grafana/gradwarden.json").read_text())
    started = []
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        try:
            ports = start_daemon(daemon, folder, started)
            rules = source / "deploy/prometheus/gradwarden.rules.yaml"
            prometheus = start_prometheus(program, folder, rules, ports["http"], started)
            wait_for("a scrape", lambda: ask(prometheus, 'up{job="gradwarden"} == 1'))
            for attempt, seen in (("first", 300), ("second", 700)):  # counters that rise between two scrapes
                command = [run_maker, f"127.0.0.1:{ports['grpc']}", "--attempt", attempt]
                subprocess.run(command, check=True, timeout=DEADLINE_S)
                wait_for("the run", lambda: ask(prometheus, f"gradwarden_grad_norm_ratio_count > {seen}"))
            now = ask(prometheus, "timestamp(gradwarden_runs)")[0]["value"][1]
            wait_for("more scrapes", lambda: ask(prometheus, f"timestamp(gradwarden_runs) > {now} + 2"))
            failed, checked = check(prometheus, dashboard)
        finally:
            for process in started:
                process.terminate()
            for process in started:
                process.wait(30)
    print(f"{checked} queries checked")
    for line in failed:
        print(line)
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
