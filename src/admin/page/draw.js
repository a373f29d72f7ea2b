// The two strips: latency as a heat map, rates as columns. One interval is one column, the newest on the right.

import { percent, rate, seconds } from "./text.js";

let colours = null;

/** The colours of the style sheet have changed. */
export function forgetColours() {
  colours = null;
}

function colour(name) {
  if (!colours) {
    const style = getComputedStyle(document.documentElement);
    colours = Object.fromEntries(
      ["heat", "heat-ground", "done", "failed", "dropped", "asked"].map((key) => [key, style.getPropertyValue(`--${key}`).trim()]),
    );
  }
  return colours[name];
}

/** A canvas as sharp as the screen, cleared, with its size in CSS pixels. */
function ground(canvas) {
  const scale = window.devicePixelRatio || 1;
  const width = canvas.clientWidth;
  const height = canvas.clientHeight;
  const [deviceWidth, deviceHeight] = [Math.round(width * scale), Math.round(height * scale)];
  if (canvas.width !== deviceWidth || canvas.height !== deviceHeight) {
    canvas.width = deviceWidth;
    canvas.height = deviceHeight;
  }
  const context = canvas.getContext("2d");
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, deviceWidth, deviceHeight);
  return { context, width: deviceWidth, height: deviceHeight };
}

/** Where column `index` of `columns` begins, on whole pixels so that neighbours touch. */
function edge(index, columns, size) {
  return Math.round((index * size) / columns);
}

/**
 * `cells` has for each interval pairs of band and count. Draws them, and says in words what is seen.
 * `bounds` are the upper bounds of all bands but the last, in seconds; `columns` is how many intervals there can be.
 */
export function heat(canvas, cells, bounds, columns) {
  const { context, width, height } = ground(canvas);
  const bands = bounds.length + 1;
  const first = columns - cells.length;
  context.fillStyle = colour("heat-ground");
  context.fillRect(edge(first, columns, width), 0, width, height);
  context.fillStyle = colour("heat");
  const sums = new Array(bands).fill(0);
  cells.forEach((cell, index) => {
    const [left, right] = [edge(first + index, columns, width), edge(first + index + 1, columns, width)];
    let total = 0;
    for (let at = 0; at < cell.length; at += 2) total += cell[at + 1];
    for (let at = 0; at < cell.length; at += 2) {
      const [band, number] = [cell[at], cell[at + 1]];
      sums[band] += number;
      // Single slow requests among thousands must still be seen.
      context.globalAlpha = 0.25 + 0.75 * Math.sqrt(number / total);
      const [top, bottom] = [edge(bands - 1 - band, bands, height), edge(bands - band, bands, height)];
      context.fillRect(left, top, right - left, bottom - top);
    }
  });
  context.globalAlpha = 1;
  return heatInWords(sums, bounds);
}

function heatInWords(sums, bounds) {
  const seen = sums.flatMap((number, band) => (number > 0 ? [band] : []));
  if (seen.length === 0) return "no requests finished";
  const upTo = (band) => (band < bounds.length ? `up to ${seconds(bounds[band])}` : `over ${seconds(bounds.at(-1))}`);
  const most = sums.indexOf(Math.max(...sums));
  const last = seen.at(-1);
  return last === most ? `all ${upTo(last)}` : `most ${upTo(most)}, the slowest ${upTo(last)}`;
}

/** Draws what was asked, finished, failed and dropped in each interval, per second; says in words what is seen. */
export function rates(canvas, history, asked, columns) {
  const { context, width, height } = ground(canvas);
  const intervals = history.seconds.length;
  const first = columns - intervals;
  const perSecond = (counts) => counts.map((number, index) => number / Math.max(history.seconds[index], 0.001));
  const [finished, failed, dropped] = [history.finished, history.failed, history.dropped].map(perSecond);
  // One request in a short interval, as the first one is, is a high rate that says little.
  const long = Math.max(...history.seconds) / 2;
  const tops = history.seconds.map((length, index) => (length < long ? 0 : finished[index] + dropped[index]));
  const top = Math.max(asked * 1.15, ...tops, 1e-9);
  const y = (value) => Math.min(value / top, 1) * (height - 2);
  const bars = (name, values, place) => {
    context.fillStyle = colour(name);
    values.forEach((value, index) => {
      if (value <= 0) return;
      const [left, right] = [edge(first + index, columns, width), edge(first + index + 1, columns, width)];
      const size = Math.max(y(value), 2);
      context.fillRect(left, place(size, index), right - left, size);
    });
  };
  bars("done", finished, (size) => height - size);
  bars("failed", failed, (size) => height - size);
  bars("dropped", dropped, () => 0);
  const line = Math.max(1, Math.round(window.devicePixelRatio || 1));
  if (asked > 0 && intervals > 0) {
    context.fillStyle = colour("asked");
    context.fillRect(edge(first, columns, width), Math.round(height - y(asked)), width, line);
  }
  return ratesInWords(history, finished);
}

function ratesInWords(history, finished) {
  if (history.seconds.length === 0) return "nothing recorded yet";
  const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);
  const [low, high] = [Math.min(...finished), Math.max(...finished)];
  const [lowest, highest] = [low, high].map((value) => rate(value, " per second", " per hour"));
  const parts = [`finished ${lowest === highest ? lowest : `${lowest} to ${highest}`}`];
  const [done, failed, dropped] = [sum(history.finished), sum(history.failed), sum(history.dropped)];
  if (failed > 0) parts.push(`${percent(failed / done)} failed`);
  if (dropped > 0) parts.push(`${percent(dropped / sum(history.scheduled))} dropped`);
  return parts.join(", ");
}
