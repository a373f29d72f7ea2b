// The table of targets. Rows are made once and filled again and again; a cell is only touched when its text changes.

import { heat, rates } from "./draw.js";
import { ago, bytes, count, listed, moment, NONE, percent, quantiles, rate, seconds } from "./text.js";

/** Columns that can be sorted by: the key that the server knows, the head, what it means, and whether most comes first. */
export const COLUMNS = [
  { key: "name", head: "Target", hint: "Its name, host and labels", most: false },
  { key: "state", head: "State", hint: "The worst first", most: false },
  { key: "asked_rate", head: "asked", hint: "The rate that the schedule asks for", most: true },
  { key: "scheduled_rate", head: "sched.", hint: "Arrivals that came due", most: true },
  { key: "started_rate", head: "started", hint: "Requests that were sent or tried to be", most: true },
  { key: "finished_rate", head: "finished", hint: "Requests that ended, well or badly", most: true },
  { key: "error_ratio", head: "Errors", hint: "How many of those that finished failed", most: true },
  { key: "p50", head: "p50", hint: "Half of all requests took no longer", most: true },
  { key: "p90", head: "p90", hint: "90 % of all requests took no longer", most: true },
  { key: "p99", head: "p99", hint: "99 % of all requests took no longer", most: true },
  { key: "p99.9", head: "p99.9", hint: "99.9 % of all requests took no longer", most: true },
  { key: "max", head: "max", hint: "The slowest request", most: true },
  { head: "Latency, 5 min" },
  { head: "Rate, 5 min" },
  { key: "last_failure", head: "Last failure", hint: "The latest first", most: true },
];

const QUANTILES = ["p50", "p90", "p99", "p99.9", "max"];
const RATES = ["scheduled_rate", "started_rate", "finished_rate"];

export function set(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function label(node, text) {
  if (node.getAttribute("aria-label") !== text) node.setAttribute("aria-label", text);
}

/** Fills a list of terms. `pairs` always has the same terms for the same list. */
export function terms(list, pairs) {
  while (list.children.length > pairs.length) list.lastElementChild.remove();
  pairs.forEach(([term, text, mark], index) => {
    let pair = list.children[index];
    if (!pair) {
      pair = document.createElement("div");
      pair.append(document.createElement("dt"), document.createElement("dd"));
      list.append(pair);
    }
    set(pair.firstElementChild, term);
    set(pair.lastElementChild, text);
    if (pair.className !== (mark ?? "")) pair.className = mark ?? "";
  });
}

export class Table {
  #body;
  #rows = [];
  #open = new Set();
  #shown = null;

  constructor(body) {
    this.#body = body;
  }

  /** Shows the targets of an answer, in its order. */
  show(answer) {
    this.#shown = answer;
    const focused = this.#rows.find(({ button }) => button === document.activeElement);
    const name = focused?.name;
    answer.targets.forEach((target, index) => this.#row(index).fill(target, answer, this.#open.has(target.name)));
    for (const row of this.#rows.splice(answer.targets.length)) row.remove();
    // Who was on a target when the order changed stays on that target.
    if (focused?.name !== name) this.#rows.find((row) => row.name === name)?.button.focus({ preventScroll: true });
  }

  /** Draws all strips again: their size or colours have changed. */
  redraw() {
    for (const row of this.#rows) row.drawn = null;
    if (this.#shown) this.show(this.#shown);
  }

  #row(index) {
    if (!this.#rows[index]) {
      const row = new Row((name) => this.#toggle(name));
      this.#body.append(row.line, row.more);
      this.#rows[index] = row;
    }
    return this.#rows[index];
  }

  #toggle(name) {
    if (!this.#open.delete(name)) this.#open.add(name);
    this.show(this.#shown);
  }
}

class Row {
  drawn = null;
  name = null;

  constructor(toggle) {
    const part = (id) => document.getElementById(id).content.firstElementChild.cloneNode(true);
    this.line = part("row");
    this.more = part("more");
    this.button = this.line.querySelector("button");
    this.cells = Object.fromEntries([...this.line.querySelectorAll("[data-cell]")].map((cell) => [cell.dataset.cell, cell]));
    this.strips = Object.fromEntries([...this.line.querySelectorAll("canvas")].map((strip) => [strip.dataset.strip, strip]));
    this.button.addEventListener("click", () => toggle(this.name));
  }

  remove() {
    this.line.remove();
    this.more.remove();
  }

  fill(target, answer, open) {
    this.name = target.name;
    this.line.dataset.state = target.state;
    this.line.dataset.name = target.name;
    const labels = Object.entries(target.labels).map(([name, value]) => `${name}=${value}`);
    const failure = target.last_failure;
    const texts = {
      name: target.name,
      where: [target.authority, ...labels].join("  "),
      state: target.state,
      asked_rate: rate(target.asked_rate),
      error_ratio: percent(target.recent.error_ratio),
      reason: failure ? reason(failure) : NONE,
      failed_at: failure ? ago(answer.now - failure.at) : "",
    };
    for (const key of RATES) texts[key] = rate(target.recent[key]);
    for (const name of QUANTILES) texts[name] = seconds(target.recent.latency[name]);
    for (const [key, text] of Object.entries(texts)) set(this.cells[key], text);
    const tip = failure ? moment(failure.at) : "";
    if (this.cells.failed_at.title !== tip) this.cells.failed_at.title = tip;
    this.cells.error_ratio.classList.toggle("bad", target.recent.error_ratio > 0);
    this.#draw(target, answer.history);
    if (this.button.getAttribute("aria-expanded") !== String(open)) {
      this.button.setAttribute("aria-expanded", String(open));
      this.more.classList.toggle("open", open);
    }
    if (open) terms(this.more.querySelector("dl"), details(target));
  }

  #draw(target, scale) {
    const what = `${target.name} ${target.history.ended} ${this.strips.latency.clientWidth}`;
    if (this.drawn === what) return;
    this.drawn = what;
    const { latency, rates: speed } = this.strips;
    label(latency, `Latency: ${heat(latency, target.history.latency, scale.latency_bounds_seconds, scale.intervals)}`);
    label(speed, `Rate: ${rates(speed, target.history, target.asked_rate, scale.intervals)}`);
  }
}

function reason(failure) {
  return failure.status == null ? failure.reason : `${failure.reason} ${failure.status}`;
}

function details(target) {
  const limit = count(target.in_flight_limit);
  const labels = Object.entries(target.labels).map(([name, value]) => `${name}=${value}`);
  return [
    ["Target", `${target.protocol}://${target.authority}`],
    ["Labels", labels.join(", ") || "none"],
    ["Since", moment(target.since)],
    ["Scheduled", count(target.scheduled)],
    ["Started", count(target.started)],
    ["Finished", count(target.finished)],
    ["Canceled", count(target.canceled)],
    ["In flight", `${count(target.in_flight)} of at most ${limit}`],
    ["Dropped", listed(target.dropped)],
    ["Responses", listed(target.responses)],
    ["Failures", listed(target.failures)],
    ["Latency since then", quantiles(target.latency), "wide"],
    ["Duration since then", quantiles(target.duration), "wide"],
    ["Connections", `${count(target.connections.open)} open, ${count(target.connections.opened)} opened`],
    ["Bytes", `${bytes(target.sent_bytes)} sent, ${bytes(target.received_bytes)} received`],
  ];
}
