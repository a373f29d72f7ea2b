// Numbers as people read them. Nothing here knows of the page.

export const NONE = "–";

const whole = new Intl.NumberFormat("en");

export function count(number) {
  return number == null ? NONE : whole.format(number);
}

/** Three digits, or two behind zeros. */
function digits(number) {
  if (number === 0) return "0";
  if (number >= 999.5) return whole.format(Math.round(number));
  if (number >= 99.95) return number.toFixed(0);
  if (number >= 9.995) return number.toFixed(1);
  if (number >= 0.9995) return number.toFixed(2);
  return number >= 1e-6 ? number.toPrecision(2) : number.toExponential(0);
}

/** A rate per second, or per hour where that would be nothing but zeros. */
export function rate(perSecond, second = "", hour = "/h") {
  if (perSecond == null) return NONE;
  return perSecond > 0 && perSecond < 0.01 ? `${digits(perSecond * 3600)}${hour}` : `${digits(perSecond)}${second}`;
}

export function seconds(value) {
  if (value == null) return NONE;
  if (value >= 0.9995) return `${digits(value)} s`;
  if (value >= 0.0009995) return `${digits(value * 1e3)} ms`;
  return `${Math.round(value * 1e6)} µs`;
}

/** A share in percent. What is not nothing does not look like nothing, nor like all what is not all. */
export function percent(ratio) {
  if (ratio == null) return NONE;
  if (ratio === 0 || ratio === 1) return `${ratio * 100} %`;
  if (ratio < 0.0001) return "< 0.01 %";
  if (ratio > 0.999 && ratio < 1) return "> 99.9 %";
  return `${digits(ratio * 100)} %`;
}

export function bytes(number) {
  if (number == null) return NONE;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (number >= 1024 && unit < units.length - 1) {
    number /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? number : number.toFixed(1)} ${units[unit]}`;
}

/** A stretch of time in one or two units. */
export function span(duration) {
  const total = Math.max(0, Math.round(duration));
  const parts = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const first = parts.findIndex(([, size]) => total >= size);
  if (first < 0) return "0 s";
  const [unit, size] = parts[first];
  const head = `${Math.floor(total / size)} ${unit}`;
  const [nextUnit, nextSize] = parts[first + 1] ?? ["", 1];
  const rest = Math.floor((total % size) / nextSize);
  return nextUnit && rest > 0 && total < 10 * size ? `${head} ${rest} ${nextUnit}` : head;
}

export function ago(duration) {
  return duration < 1 ? "just now" : `${span(duration)} ago`;
}

export function clock(unixSeconds) {
  return new Date(unixSeconds * 1000).toLocaleTimeString("en-GB");
}

export function moment(unixSeconds) {
  const date = new Date(unixSeconds * 1000);
  return `${date.toLocaleDateString("en-CA")} ${date.toLocaleTimeString("en-GB")}`;
}

/** The same without a place where a line could end. */
function unbroken(text) {
  return text.replaceAll(" ", "\u00a0");
}

/** What there is of something, by name: "12 timeout_response, 3 reset". */
export function listed(counts) {
  const seen = Object.entries(counts).filter(([, number]) => number > 0);
  if (seen.length === 0) return "none";
  return seen.sort((a, b) => b[1] - a[1]).map(([name, number]) => unbroken(`${count(number)} × ${name}`)).join(", ");
}

export function quantiles(histogram) {
  if (!histogram.count) return "none";
  return ["p50", "p90", "p99", "p99.9", "max"].map((name) => unbroken(`${name} ${seconds(histogram[name])}`)).join(" · ");
}
