"""The daemon's web page in a real headless Chromium, with a real gradwardend behind it.

Needs GRADWARDEND, MAKE_RUN (the program that makes runs) and CHROMIUM in the environment; skipped without.
"""

import json
import os
import pathlib
import subprocess
import tempfile
import time
import unittest
import urllib.error
import urllib.request

from chromium import Browser

DEADLINE_S = 60
NAMES = ("GRADWARDEND", "MAKE_RUN", "CHROMIUM")
PAINTED = """(() => { const plot = document.querySelector('#norm-plot canvas'); if (!plot || !plot.width) return 0;
  const pixels = plot.getContext('2d').getImageData(0, 0, plot.width, plot.height).data;
  let painted = 0; for (let i = 3; i < pixels.length; i += 4) if (pixels[i] > 0) ++painted; return painted; })()"""
DRAWN = "Number(document.body.dataset.drawn)"
# What the daemon answers about run a waits until window.held[0]() is called; what is asked for after that is noted.
HOLD_ANSWERS_ABOUT_A = """(() => { window.held = []; window.askedAfterwards = []; let released = false;
  window.realFetch ??= window.fetch;
  window.fetch = async (path, ...more) => {
    if (released) window.askedAfterwards.push(path);
    const answer = await window.realFetch(path, ...more);
    if (path.startsWith('/api/run?run=a')) await new Promise((resume) => window.held.push(() => { released = true; resume(); }));
    return answer;
  }; })()"""


class Daemon:
    def __init__(self, folder, *flags):
        ports = pathlib.Path(folder) / "ports.json"
        self.process = subprocess.Popen(
            [os.environ["GRADWARDEND"], "--data-dir", f"{folder}/data", "--grpc-listen", "127.0.0.1:0", "--http-listen",
             "127.0.0.1:0", "--ports-file", ports, "--log-level", "error", *flags]
        )  # fmt: skip
        deadline = time.monotonic() + DEADLINE_S
        while not (ports.exists() and ports.stat().st_size):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError("gradwardend did not become ready")
            time.sleep(0.02)
        told = json.loads(ports.read_text())
        self.grpc, self.page = f"127.0.0.1:{told['grpc']}", f"http://127.0.0.1:{told['http']}/"

    def make(self, *flags, wait=True):
        made = subprocess.Popen([os.environ["MAKE_RUN"], self.grpc, *map(str, flags)])
        if wait and made.wait(DEADLINE_S) != 0:
            raise AssertionError("make_run failed")
        return made

    def stop(self):
        self.process.terminate()
        if self.process.wait(DEADLINE_S) != 0:
            raise AssertionError("gradwardend did not end in order")


@unittest.skipUnless(all(os.environ.get(name) for name in NAMES), f"needs {', '.join(NAMES)}")
class PageTest(unittest.TestCase):
    flags = ()

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.daemon = Daemon(folder.name, *self.flags_in(folder.name))
        self.addCleanup(self.daemon.stop)
        self.browser = Browser(os.environ["CHROMIUM"])
        self.addCleanup(self.browser.close)

    def flags_in(self, folder):
        return ()

    def wait(self, expression):
        return self.browser.wait_for(expression)

    def check_quiet(self):
        self.assertEqual(self.browser.complaints, [])
        self.assertEqual(self.browser.hosts, {self.daemon.page.split("/")[2]})

    def test_an_empty_daemon_says_how_to_report(self):
        self.browser.open(self.daemon.page)
        self.wait("!document.getElementById('no-runs').hidden")
        self.check_quiet()

    def test_a_run_is_opened_from_the_list_and_its_plots_events_and_maps_are_drawn(self):
        self.daemon.make("--run", "a.b-c_d", "--steps", 600, "--finish")
        self.browser.open(self.daemon.page)
        self.wait("document.querySelectorAll('#run-rows tr').length == 1")
        self.assertEqual(self.browser.evaluate("document.querySelector('#run-rows a').textContent"), "a.b-c_d")
        self.browser.evaluate("document.querySelector('#run-rows tr').click()")
        self.wait(f"{DRAWN} == 600")
        self.assertGreater(self.wait(PAINTED), 1000)
        kinds = self.browser.evaluate("[...document.querySelectorAll('#events b')].map((one) => one.textContent.trim())")
        self.assertIn("grad_spike", kinds)
        self.assertIn("non_finite", kinds)
        self.wait("document.getElementById('groups-map').width > 300 && !document.getElementById('ranks-map').hidden")
        self.check_quiet()

    def test_steps_and_an_event_appear_while_the_page_is_open(self):
        self.daemon.make("--run", "live", "--steps", 100)
        self.browser.open(f"{self.daemon.page}#run=live")
        self.wait(f"{DRAWN} == 100")
        self.wait("document.getElementById('live').classList.contains('on')")
        before = self.browser.evaluate("document.querySelectorAll('#events > li').length")
        self.browser.evaluate("window.notLoadedAgain = true")
        made = self.daemon.make("--run", "live", "--attempt", "second", "--steps", 2, wait=True)
        self.assertEqual(made.returncode, 0)
        self.browser.open(f"{self.daemon.page}#run=live&attempt=second")
        self.wait(f"{DRAWN} == 2")
        # Ten seconds of steps: a slow browser, too, has drawn the first of them before the last come.
        made = self.daemon.make("--run", "live", "--attempt", "third", "--steps", 300, "--steps-per-second", 30, wait=False)
        self.addCleanup(made.wait, DEADLINE_S)
        self.wait("fetch('/api/run?run=live').then((answer) => answer.json()).then((run) => run.latest_attempt == 'third')")
        self.browser.open(f"{self.daemon.page}#run=live")
        first = self.wait(f"document.querySelector('#attempt').value == 'third' && {DRAWN}")
        self.wait(f"{DRAWN} > {first} + 20")
        self.wait("[...document.querySelectorAll('#events b')].some((one) => one.textContent.trim() == 'grad_spike')")
        self.wait(f"{DRAWN} == 300")
        self.assertTrue(self.browser.evaluate("window.notLoadedAgain"))
        self.assertGreaterEqual(before, 1)
        self.check_quiet()

    def test_zoom_keys_dark_mode_and_comparison_of_attempts(self):
        self.daemon.make("--run", "a", "--steps", 500)
        self.daemon.make("--run", "a", "--attempt", "second", "--first-step", 200, "--steps", 400, "--seed", 2)
        self.browser.open(f"{self.daemon.page}#run=a")
        self.wait(f"{DRAWN} == 400")
        self.browser.press("+")
        self.wait("location.hash.includes('first=')")
        self.wait(f"{DRAWN} < 250")
        self.browser.press("0")
        self.wait(f"{DRAWN} == 400")
        theme = self.browser.evaluate("document.documentElement.dataset.theme")
        self.browser.press("d")
        self.wait(f"document.documentElement.dataset.theme != {theme!r}")
        self.browser.evaluate(
            "document.getElementById('other').value = 'first'; document.getElementById('other').dispatchEvent(new Event('change'))"
        )
        self.wait("location.hash.includes('other=first')")
        self.wait("document.getElementById('other').value == 'first'")
        self.browser.press("Escape")
        self.wait("!document.getElementById('runs').hidden")
        self.check_quiet()

    def test_a_run_that_was_left_before_it_was_told_is_not_asked_for_further(self):
        self.daemon.make("--run", "a", "--steps", 50)
        self.daemon.make("--run", "b", "--steps", 80)
        self.browser.open(self.daemon.page)
        self.wait("document.querySelectorAll('#run-rows tr').length == 2")
        for left_for in ("", "run=b"):
            with self.subTest(left_for=left_for):
                self.browser.evaluate(HOLD_ANSWERS_ABOUT_A)
                self.browser.evaluate("location.hash = 'run=a'")
                self.wait("window.held.length == 1")
                self.browser.evaluate(f"location.hash = '{left_for}'")
                self.wait(f"{DRAWN} == 80" if left_for else "!document.getElementById('runs').hidden")
                self.browser.evaluate("window.held[0]()")
                self.browser.evaluate("new Promise((resume) => setTimeout(resume, 300))")
                asked = self.browser.evaluate("window.askedAfterwards")
                self.assertEqual([path for path in asked if not path.startswith("/api/runs") and "run=b" not in path], [])
        self.assertIn("steps 0 to 79", self.browser.evaluate("document.getElementById('facts').textContent"))
        self.check_quiet()

    def test_a_spike_of_one_step_among_many_is_in_what_is_drawn(self):
        steps = 60_000
        self.daemon.make("--run", "long", "--steps", steps, "--groups", 2)
        self.browser.open(f"{self.daemon.page}#run=long")
        drawn = self.wait(f"{DRAWN} > 0 && {DRAWN}")
        self.assertLess(drawn, 4000)
        highest = self.browser.evaluate(
            "fetch('/api/history?run=long&points=500').then((answer) => answer.json()).then((h) => Math.max(...h.norm_max))"
        )
        with urllib.request.urlopen(f"{self.daemon.page}api/history?run=long&first={steps * 2 // 5}&last={steps * 2 // 5}") as answer:
            self.assertEqual(json.load(answer)["norm"], [highest])
        self.check_quiet()


class TokenTest(PageTest):
    """With tokens the page is shown, and its data only to who has one."""

    def flags_in(self, folder):
        tokens = pathlib.Path(folder) / "tokens"
        tokens.write_text("read: secret-with-which-to-read\nwrite: secret-with-which-to-write\n")
        tokens.chmod(0o600)
        return ("--token-file", str(tokens))

    def test_data_needs_a_token_with_the_scope_to_read(self):
        for token, status in ((None, 401), ("wrong", 401), ("secret-with-which-to-write", 403), ("secret-with-which-to-read", 200)):
            request = urllib.request.Request(f"{self.daemon.page}api/runs")
            if token:
                request.add_header("Authorization", f"Bearer {token}")
            try:
                seen = urllib.request.urlopen(request).status
            except urllib.error.HTTPError as error:
                seen = error.code
            self.assertEqual(seen, status, token)
        self.browser.open(self.daemon.page)
        self.wait("!document.getElementById('sign-in').hidden")
        self.browser.evaluate(
            "document.getElementById('token').value = 'secret-with-which-to-read'; document.getElementById('sign-in').requestSubmit()"
        )
        self.wait("document.getElementById('sign-in').hidden && !document.getElementById('no-runs').hidden")


def without_inherited_tests(case):
    for name in [name for name in dir(PageTest) if name.startswith("test_")]:
        setattr(case, name, None)


without_inherited_tests(TokenTest)

if __name__ == "__main__":
    unittest.main()
