// Asks for the status every few seconds while somebody looks, and shows it.

import { forgetColours, heat, rates } from "./draw.js";
import { COLUMNS, set, Table, terms } from "./table.js";
import { ago, bytes, clock, count, moment, percent, rate, seconds, span } from "./text.js";

const INTERVAL_MS = 5000;
const PATIENCE_MS = 10000;
const TYPING_MS = 200;
const PAGE_SIZE = 50;
/** All states that the server knows, and what their filters are called. */
const STATES = { "": "all", failing: "failing", dropping: "dropping", waiting: "waiting", good: "good", draining: "draining" };

const at = (id) => document.getElementById(id);
const table = new Table(at("rows"));
const view = { search: "", state: "", sort: "state", order: "ascending", offset: 0 };
let answer = null;
let timer = 0;
let asking = null;

// === asking ===

function parameters(extra) {
  const wanted = Object.entries({ ...view, ...extra }).filter(([, value]) => value !== "" && value !== 0);
  return new URLSearchParams(wanted).toString();
}

async function ask() {
  clearTimeout(timer);
  asking?.abort();
  if (document.hidden) return;
  const mine = new AbortController();
  asking = mine;
  const patience = setTimeout(() => mine.abort(new Error(`no answer within ${PATIENCE_MS / 1000} s`)), PATIENCE_MS);
  try {
    const response = await fetch(`api/v1/status?${parameters({ limit: PAGE_SIZE })}`, { signal: mine.signal });
    if (!response.ok) throw new Error(`${response.status} ${(await response.text()).trim()}`);
    const heard = await response.json();
    if (asking === mine) show(heard);
  } catch (error) {
    // One that a newer question has replaced has nothing to tell.
    if (asking === mine) unreachable(mine.signal.reason?.message ?? error.message);
  }
  clearTimeout(patience);
  if (asking === mine) {
    asking = null;
    timer = setTimeout(ask, INTERVAL_MS);
  }
}

function unreachable(why) {
  const since = answer ? ` What is shown is of ${clock(answer.now)}.` : "";
  set(at("unreachable"), `hammerd can't be reached: ${why}.${since} Trying again every ${INTERVAL_MS / 1000} seconds.`);
  at("unreachable").hidden = false;
  document.body.classList.add("stale");
  document.title = "unreachable · hammerd";
}

// === showing ===

function show(heard) {
  answer = heard;
  at("unreachable").hidden = true;
  document.body.classList.remove("stale");
  const pages = Math.max(1, Math.ceil(heard.query.matching / PAGE_SIZE));
  if (heard.query.matching > 0 && heard.targets.length === 0) {
    // There are fewer than there were.
    return look({ offset: (pages - 1) * PAGE_SIZE });
  }
  showDaemon(heard);
  showReload(heard.config);
  showOwn(heard);
  showTools(heard, pages);
  table.show(heard);
}

function showDaemon({ hammerd, fleet, config, now }) {
  set(at("version"), hammerd.version);
  const word = hammerd.state === "running" && !hammerd.healthy ? "stuck" : hammerd.state;
  at("daemon-state").dataset.state = { running: "good", stuck: "failing" }[word] ?? "waiting";
  set(at("daemon-state"), word);
  const reload = config.last_reload ? `, last reload ${ago(now - config.last_reload.at)}` : "";
  set(at("life"), `up ${span(hammerd.uptime_seconds)}, configuration ${count(config.generation)}${reload}`);
  set(at("updated"), `as of ${clock(now)}`);
  const { failing } = fleet.states;
  document.title = failing > 0 ? `${count(failing)} failing · hammerd` : "hammerd";
  const draining = hammerd.state === "draining";
  at("notice").hidden = !draining;
  if (draining) set(at("notice"), "Draining: no more requests are sent, those in flight may finish, then hammerd ends.");
}

function showReload({ last_reload: last, generation }) {
  const failed = last != null && !last.successful;
  at("reload").hidden = !failed;
  if (!failed) return;
  set(at("reload-title"), `The reload at ${moment(last.at)} was refused; configuration ${generation} goes on`);
  set(at("reload-error"), last.error ?? "");
}

function showOwn({ hammerd, fleet, history }) {
  const { recent } = hammerd;
  const crowded = hammerd.open_fds > 0.8 * (hammerd.max_fds ?? Infinity);
  terms(at("tiles"), [
    ["Asked", rate(fleet.asked_rate, " /s", " /h")],
    ["Scheduled", rate(recent.scheduled_rate, " /s", " /h")],
    ["Started", rate(recent.started_rate, " /s", " /h")],
    ["Finished", rate(recent.finished_rate, " /s", " /h")],
    ["Errors", percent(recent.error_ratio), recent.error_ratio > 0 ? "bad" : ""],
    ["Dropped", percent(recent.dropped_ratio), recent.dropped_ratio > 0 ? "warn" : ""],
    ["In flight", count(fleet.in_flight)],
    ["Lag p50", seconds(recent.lag.p50)],
    ["Lag p99", seconds(recent.lag.p99)],
    ["Lag max", seconds(recent.lag.max)],
    ["CPU (of a core)", percent(recent.cpu_ratio)],
    ["Memory", bytes(hammerd.resident_memory_bytes)],
    ["Open files", count(hammerd.open_fds) + (crowded ? ` of ${count(hammerd.max_fds)}` : ""), crowded ? "warn" : ""],
    ["Workers", count(hammerd.workers)],
  ]);
  const [speed, lag] = [at("own-rates"), at("own-lag")];
  const bounds = history.latency_bounds_seconds;
  const past = `last ${span(history.interval_seconds * history.intervals)}`;
  document.querySelectorAll("[data-text=span]").forEach((place) => set(place, past));
  speed.setAttribute("aria-label", `All requests: ${rates(speed, hammerd.history, fleet.asked_rate, history.intervals)}`);
  lag.setAttribute("aria-label", `Lag: ${heat(lag, hammerd.history.lag, bounds, history.intervals)}`);
}

function showTools({ fleet, query }, pages) {
  for (const [state, button] of Object.entries(filters)) {
    const number = state === "" ? fleet.targets : fleet.states[state];
    set(button.querySelector("b"), count(number));
    // The usual ones stay, so that nothing jumps; the rare ones come when there are any.
    const rare = state === "waiting" || state === "draining";
    button.hidden = rare && number === 0 && view.state !== state;
  }
  const filtered = view.search !== "" || view.state !== "";
  set(at("matching"), filtered ? `${count(query.matching)} of ${count(fleet.targets)} match` : "");
  at("empty").hidden = query.matching > 0;
  set(at("empty"), fleet.targets === 0 ? "There are no targets." : "No target matches. Clear the search or choose another state.");
  at("pages").hidden = pages === 1;
  const page = Math.floor(query.offset / PAGE_SIZE) + 1;
  set(at("page"), `${count(query.offset + 1)} to ${count(Math.min(query.offset + PAGE_SIZE, query.matching))} of ${count(query.matching)}`);
  at("previous").disabled = page <= 1;
  at("next").disabled = page >= pages;
}

// === choosing ===

const filters = {};

/** Looks at something else: other rows, or in another order. */
function look(change) {
  Object.assign(view, { offset: 0 }, change);
  reflect();
  ask();
}

/** Shows on the controls, and in the address, what is looked at. */
function reflect() {
  const wanted = parameters({});
  history.replaceState(null, "", wanted === "" ? location.pathname : `?${wanted}`);
  for (const [state, choice] of Object.entries(filters)) choice.querySelector("input").checked = state === view.state;
  for (const head of at("heads").children) {
    if (!head.dataset.key) continue;
    const sorted = head.dataset.key === view.sort;
    if (sorted) head.setAttribute("aria-sort", view.order);
    else head.removeAttribute("aria-sort");
  }
  at("sort").value = view.sort;
  at("order").value = view.order;
  if (at("search").value !== view.search) at("search").value = view.search;
}

function sortBy({ key, most }) {
  const first = most ? "descending" : "ascending";
  const other = most ? "ascending" : "descending";
  look({ sort: key, order: view.sort === key && view.order === first ? other : first });
}

function makeHeads() {
  for (const column of COLUMNS) {
    const head = document.createElement("th");
    head.scope = "col";
    head.setAttribute("role", "columnheader");
    if (column.key) {
      head.dataset.key = column.key;
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = column.head;
      button.title = `${column.hint}. Press to sort.`;
      button.addEventListener("click", () => sortBy(column));
      head.append(button);
      at("sort").append(new Option(column.head, column.key));
    } else {
      head.textContent = column.head;
    }
    at("heads").append(head);
  }
}

function makeFilters() {
  for (const [state, name] of Object.entries(STATES)) {
    const choice = document.createElement("label");
    choice.dataset.state = state;
    const input = document.createElement("input");
    input.type = "radio";
    input.name = "state";
    input.value = state;
    input.addEventListener("change", () => look({ state }));
    choice.append(input, `${name} `, document.createElement("b"));
    at("states").append(choice);
    filters[state] = choice;
  }
}

function listen() {
  let typing = 0;
  at("search").addEventListener("input", (event) => {
    clearTimeout(typing);
    typing = setTimeout(() => look({ search: event.target.value.trim() }), TYPING_MS);
  });
  at("tools").addEventListener("submit", (event) => event.preventDefault());
  at("sort").addEventListener("change", (event) => {
    const column = COLUMNS.find(({ key }) => key === event.target.value);
    look({ sort: column.key, order: column.most ? "descending" : "ascending" });
  });
  at("order").addEventListener("change", (event) => look({ order: event.target.value }));
  at("previous").addEventListener("click", () => look({ offset: Math.max(0, view.offset - PAGE_SIZE) }));
  at("next").addEventListener("click", () => look({ offset: view.offset + PAGE_SIZE }));
  document.addEventListener("visibilitychange", ask);
  const redraw = () => {
    forgetColours();
    if (answer) {
      showOwn(answer);
      table.redraw();
    }
  };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  window.addEventListener("resize", redraw);
}

/** What a bookmark asks for, as far as it makes sense. */
function readAddress() {
  const asked = new URLSearchParams(location.search);
  const known = {
    search: (text) => text.length <= 100,
    state: (text) => text in STATES,
    sort: (text) => COLUMNS.some(({ key }) => key === text),
    order: (text) => text === "ascending" || text === "descending",
  };
  for (const [key, makesSense] of Object.entries(known)) {
    const text = asked.get(key);
    if (text != null && makesSense(text)) view[key] = text;
  }
  const offset = Number(asked.get("offset"));
  if (Number.isInteger(offset) && offset > 0) view.offset = offset;
}

makeHeads();
makeFilters();
listen();
readAddress();
reflect();
ask();
