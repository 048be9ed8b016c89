// The page: a list of runs, and one run. What is shown stands in the address's hash, so that a link keeps it.
import { Live, SignInNeeded, get, keepToken } from "./data.js";
import { HeatMap } from "./heatmap.js";
import { Plots, short } from "./plots.js";

const element = (id) => document.getElementById(id);
const MOST_KEPT = 3000; // steps that live updates add before the history is asked for again
const MOST_EVENTS = 500; // as many as the daemon gives at once
const REFRESH_RUNS_MS = 5000;
const REFRESH_MAPS_MS = 10000;

const state = { run: "", attempt: "", other: "", first: undefined, last: undefined };
let plots, groups, ranks, live, history, other, events = [], known = null, drawn = 0, shown = 0;

function made(name, properties = {}, ...children) {
  const one = Object.assign(document.createElement(name), properties);
  one.append(...children);
  return one;
}

function age(milliseconds) {
  const seconds = Math.max(0, (Date.now() - milliseconds) / 1000);
  const [size, unit] = seconds < 90 ? [1, "s"] : seconds < 5400 ? [60, "min"] : seconds < 129600 ? [3600, "h"] : [86400, "days"];
  return `${Math.round(seconds / size)} ${unit} ago`;
}

// Everything that talks to the daemon goes through here.
async function guarded(work) {
  try {
    await work();
    element("problem").hidden = true;
  } catch (error) {
    if (error instanceof SignInNeeded) {
      element("sign-in").hidden = false;
      element("token").focus();
      return;
    }
    element("problem").textContent = `${error.message}; the page goes on trying`;
    element("problem").hidden = false;
  }
}

// ---- the list of runs ----

function health(run) {
  if (run.open_events > 0) return ["bad", `${run.open_events} open`];
  if (run.finished) return ["quiet", "finished"];
  const silent = Date.now() - run.last_report > 600000;
  return silent ? ["note", "silent"] : ["good", "well"];
}

function runRow(run) {
  const [kind, words] = health(run);
  const cells = [short(run.last_step), short(run.norm), short(run.loss), short(run.clipped), short(run.skipped), short(run.events)];
  const link = made("a", { href: `#run=${encodeURIComponent(run.run)}`, textContent: run.run });
  const row = made("tr", {}, made("td", {}, link), made("td", { className: kind, textContent: words }),
    ...cells.map((text) => made("td", { className: "n", textContent: text })), made("td", { textContent: age(run.last_report) }));
  row.addEventListener("click", () => { location.hash = link.hash; });
  return row;
}

async function showRuns() {
  const { runs } = await get("runs");
  element("run-rows").replaceChildren(...runs.map(runRow));
  element("no-runs").hidden = runs.length > 0;
}

// ---- one run ----

function eventItem(event) {
  const steps = event.end !== undefined && event.end !== event.start ? `steps ${event.start}–${event.end}` : `step ${event.start}${event.open ? ", goes on" : ""}`;
  const item = made("li", { className: event.severity, tabIndex: 0 },
    made("b", { textContent: `${event.kind} ` }), `${steps} · ${event.severity} · ${new Date(event.time).toLocaleString()}`,
    made("div", { textContent: event.message }));
  if (event.cause && event.cause !== "unknown") {
    const sure = event.confidence ? ` (${Math.round(event.confidence * 100)} %)` : "";
    item.append(made("div", { className: "cause", textContent: `cause: ${event.cause}${sure}` }));
  }
  if (event.evidence.length) item.append(made("ul", {}, ...event.evidence.map((text) => made("li", { textContent: text }))));
  if (event.action) item.append(made("div", { textContent: `→ ${event.action}` }));
  const zoom = () => {
    const width = Math.max(50, 2 * ((event.end ?? event.peak) - event.start));
    go({ first: Math.max(0, event.start - width), last: (event.end ?? event.peak) + width });
  };
  item.addEventListener("click", zoom);
  item.addEventListener("keydown", (key) => { if (key.key === "Enter") zoom(); });
  return item;
}

function showEvents(list) {
  events = list;
  const chosen = [...element("events").children].findIndex((item) => item.classList.contains("chosen"));
  element("events").replaceChildren(...[...events].reverse().map(eventItem));
  element("events").children[chosen]?.classList.add("chosen");
}

// What is new takes the place of what was known of the same event.
function addEvents(list) {
  const all = new Map([...events, ...list].map((one) => [one.id, one]));
  showEvents([...all.values()].sort((a, b) => a.id - b.id).slice(-MOST_EVENTS));
  redraw();
}

function showFacts() {
  const attempt = known.attempt_list.find((one) => one.attempt === state.attempt) ?? known.attempt_list.at(-1);
  if (!attempt) return;
  const limits = [attempt.max_norm > 0 && `clips at ${short(attempt.max_norm)}`, attempt.skip_above > 0 && `skips above ${short(attempt.skip_above)} x the mean`, attempt.shadow && "only observes"].filter(Boolean);
  const facts = [`${attempt.ranks} ranks`, `steps ${attempt.first_step} to ${attempt.last_step}`, ...limits, attempt.dropped > 0 && `${attempt.dropped} reports given up`, attempt.finished && "finished", attempt.checkpoints.length > 0 && `checkpoint at ${attempt.checkpoints.at(-1)}`];
  element("facts").textContent = facts.filter(Boolean).join(" · ");
}

function options(select, attempts, chosen, none) {
  const entries = attempts.map((one) => made("option", { value: one.attempt, textContent: `${one.ordinal}: ${one.attempt}`, selected: one.attempt === chosen }));
  select.replaceChildren(...(none ? [made("option", { value: "", textContent: none })] : []), ...entries);
  select.value = chosen;
}

const range = ({ run, first, last }, attempt) => ({ run, attempt, first, last, points: Math.round(Math.max(300, element("norm-plot").clientWidth)) });

async function showMaps() {
  const turn = shown;
  const [byGroup, byRank] = await Promise.all([get("groups", range(state, state.attempt)), get("ranks", range(state, state.attempt))]);
  if (turn !== shown) return;
  groups.draw(byGroup.groups, byGroup.step, byGroup.norms);
  const kept = byRank.local.some((row) => row.length > 0) ? byRank.ranks : [];
  element("ranks-title").hidden = kept.length === 0;
  element("ranks-shown").textContent = kept.length < byRank.world_size ? `the ${kept.length} of ${byRank.world_size} that differ most` : "";
  ranks.draw(kept.map((rank) => `rank ${rank}`), byRank.step, byRank.local.map((row) => (row.length ? row : new Array(kept.length).fill(null))));
}

const redraw = () => plots.draw(history, other, events);

// While an answer is waited for, something else may be asked for, or the list: then nothing more is done about this.
async function showRun() {
  const turn = ++shown;
  const asked = { ...state };
  const told = await get("run", { run: asked.run });
  if (turn !== shown) return;
  known = told;
  const attempt = asked.attempt || known.latest_attempt;
  options(element("attempt"), known.attempt_list, attempt);
  options(element("other"), known.attempt_list.filter((one) => one.attempt !== attempt), asked.other, "none");
  showFacts();
  const [one, two, list] = await Promise.all([get("history", range(asked, attempt)), asked.other ? get("history", range(asked, asked.other)) : null, get("events", { run: asked.run, attempt })]);
  if (turn !== shown) return;
  [history, other] = [one, two];
  showEvents(list.events);
  redraw();
  drawn = Date.now();
  document.body.dataset.drawn = `${history.step?.length ?? 0}`;
  follow(asked, attempt);
  await showMaps();
}

// ---- live ----

function stopLive() {
  live?.stop();
  live = undefined;
}

function follow({ run, last }, attempt) {
  stopLive();
  if (last !== undefined || attempt !== known.latest_attempt) return; // a part of the past
  const next = () => ({ run, attempt, first: (history?.last_step ?? -1) + 1 });
  live = new Live(next, {
    steps: addSteps,
    events: (data) => addEvents(data.events),
    behind: () => guarded(showRun),
  }, (on) => element("live").classList.toggle("on", on));
}

function addSteps(data) {
  history.last_step = data.last_step;
  if (history.kind !== "steps" || history.step === undefined || history.step.length + data.step.length > MOST_KEPT) {
    if (Date.now() - drawn > 2000) guarded(showRun);
    return;
  }
  for (const [name, column] of Object.entries(data)) if (Array.isArray(column)) history[name].push(...column);
  document.body.dataset.drawn = `${history.step.length}`;
  redraw();
}

// ---- what is shown ----

function read() {
  const hash = new URLSearchParams(location.hash.slice(1));
  const step = (name) => (hash.has(name) ? Number(hash.get(name)) : undefined);
  Object.assign(state, { run: hash.get("run") ?? "", attempt: hash.get("attempt") ?? "", other: hash.get("other") ?? "", first: step("first"), last: step("last") });
}

function go(changes) {
  const next = { ...state, ...changes };
  const entries = Object.entries(next).filter(([, value]) => value !== undefined && value !== "");
  location.hash = new URLSearchParams(entries).toString();
}

async function show() {
  read();
  const one = state.run !== "";
  element("runs").hidden = one;
  element("run").hidden = !one;
  element("where").textContent = state.run;
  document.title = one ? `${state.run} · gradwarden` : "gradwarden";
  if (!one) {
    ++shown;
    stopLive();
  }
  if (one && !plots) {
    plots = new Plots((first, last) => go({ first, last }));
    groups = new HeatMap("groups", "group");
    ranks = new HeatMap("ranks", "rank");
  }
  await guarded(one ? showRun : showRuns);
}

function theme(name) {
  document.documentElement.dataset.theme = name;
  localStorage.setItem("gradwarden-theme", name);
  if (state.run && history) {
    redraw();
    guarded(showMaps);
  }
}

function choose(by) {
  const items = [...(state.run ? element("events").children : element("run-rows").children)];
  const now = items.findIndex((item) => item.classList.contains("chosen"));
  items[now]?.classList.remove("chosen");
  const next = items[Math.max(0, Math.min(items.length - 1, now + by))];
  next?.classList.add("chosen");
  next?.scrollIntoView({ block: "nearest" });
}

const KEYS = {
  j: () => choose(1), k: () => choose(-1),
  Enter: () => document.querySelector(state.run ? "#events .chosen" : "#run-rows .chosen")?.click(),
  "+": () => plots?.zoomBy(0.5), "-": () => plots?.zoomBy(2), ArrowLeft: () => plots?.zoomBy(1, -0.25), ArrowRight: () => plots?.zoomBy(1, 0.25),
  0: () => go({ first: undefined, last: undefined }), l: () => element("log-loss").click(),
  d: () => element("theme").click(), Escape: () => { location.hash = ""; }, "?": () => element("keys").showModal(),
};

function start() {
  theme(localStorage.getItem("gradwarden-theme") ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"));
  element("theme").addEventListener("click", () => theme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
  element("help").addEventListener("click", () => element("keys").showModal());
  element("whole").addEventListener("click", KEYS[0]);
  element("attempt").addEventListener("change", (event) => go({ attempt: event.target.value, other: "", first: undefined, last: undefined }));
  element("other").addEventListener("change", (event) => go({ other: event.target.value }));
  element("log-loss").addEventListener("change", (event) => { plots.logLoss = event.target.checked; redraw(); });
  element("sign-in").addEventListener("submit", (event) => {
    event.preventDefault();
    keepToken(element("token").value);
    element("sign-in").hidden = true;
    show();
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA|DIALOG)$/.test(event.target.tagName)) return;
    if (event.key === "Enter" && event.target.closest("a, button, #events li")) return;
    KEYS[event.key]?.();
  });
  addEventListener("hashchange", show);
  setInterval(() => { if (!state.run && !document.hidden && element("sign-in").hidden) guarded(showRuns); }, REFRESH_RUNS_MS);
  setInterval(() => { if (state.run && live && !document.hidden && history) guarded(showMaps); }, REFRESH_MAPS_MS);
  show();
}

start();
