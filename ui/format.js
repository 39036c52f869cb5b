// Numbers, sizes and times as people read them.

const number = new Intl.NumberFormat("en");
const short = new Intl.NumberFormat("en", {notation: "compact", maximumFractionDigits: 1});

/** Returns a whole number with separators, or a dash for none. */
export function count(value) {
  return value == null ? "–" : number.format(Math.round(value));
}

/** Returns a large number in few characters: 12.3K. */
export function compact(value) {
  return value == null ? "–" : short.format(value);
}

/** Returns bytes in binary units. */
export function bytes(value) {
  if (value == null) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  let left = value;
  while (left >= 1024 && unit < units.length - 1) {
    left /= 1024;
    unit += 1;
  }
  return `${unit === 0 || left >= 100 ? Math.round(left) : left.toFixed(1)} ${units[unit]}`;
}

/** Returns a time span of seconds: 4 s, 3 min, 2 h 5 min. */
export function span(seconds) {
  if (seconds == null) return "–";
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return whole % 60 && whole < 600 ? `${Math.floor(whole / 60)} min ${whole % 60} s` : `${Math.round(whole / 60)} min`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.round((whole % 3600) / 60)} min`;
  return `${Math.floor(whole / 86400)} d ${Math.round((whole % 86400) / 3600)} h`;
}

/** Returns milliseconds: 85 ms, 1.25 s. */
export function millis(value) {
  if (value == null) return "–";
  return value < 1000 ? `${Math.round(value)} ms` : `${(value / 1000).toFixed(2)} s`;
}

/** Returns a rate with one digit after the point where it is small. */
export function rate(value) {
  if (value == null) return "–";
  return value < 100 ? value.toFixed(1) : count(value);
}

/** Returns a point in time as the clock shows it here. */
export function clock(text) {
  const time = new Date(text);
  return Number.isNaN(time.getTime()) ? "–" : time.toLocaleTimeString([], {hour: "2-digit", minute: "2-digit", second: "2-digit"});
}

/** Returns a date, with the time of day where it has one. */
export function date(text) {
  const time = new Date(text);
  if (text == null || Number.isNaN(time.getTime())) return "–";
  const day = time.toISOString().slice(0, 10);
  const minute = time.toISOString().slice(11, 16);
  return minute === "00:00" ? day : `${day} ${minute}`;
}

/** Returns a cost with as many digits as tell it from nothing. */
export function cost(value) {
  if (value == null) return "–";
  const amount = Number(value);
  return amount === 0 ? "0" : amount.toFixed(amount < 1 ? 4 : 2);
}
