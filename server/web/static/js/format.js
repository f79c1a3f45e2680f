// Numbers, sizes and dates in the reader's language.
import { lang, t } from "./i18n.js";

export const number = (value) => new Intl.NumberFormat(lang.value).format(value);
export const decimal = (value, digits = 1) =>
  new Intl.NumberFormat(lang.value, { minimumFractionDigits: digits, maximumFractionDigits: digits }).format(value);
export const percent = (share) => new Intl.NumberFormat(lang.value, { style: "percent" }).format(share);

export function bytes(count) {
  const units = ["B", "KB", "MB", "GB"];
  let value = count;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${unit === 0 || value >= 100 ? number(Math.round(value)) : decimal(value)} ${units[unit]}`;
}

/** "12 seconds", "5 minutes" or "3 hours", rounded up. */
export function duration(seconds) {
  const [unit, size] = seconds < 90 ? ["second", 1] : seconds < 5400 ? ["minute", 60] : ["hour", 3600];
  return new Intl.NumberFormat(lang.value, { style: "unit", unit, unitDisplay: "long" }).format(Math.ceil(seconds / size));
}

export function date(seconds) {
  return new Intl.DateTimeFormat(lang.value, { dateStyle: "medium", timeStyle: "short" }).format(seconds * 1000);
}

export function day(seconds) {
  return new Intl.DateTimeFormat(lang.value, { dateStyle: "medium" }).format(seconds * 1000);
}

/** Groups of a list that is sorted newest first: [{label, items}]. */
export function groupByDay(items, timeOf, now = new Date()) {
  const midnight = new Date(now).setHours(0, 0, 0, 0);
  const oneDay = 24 * 3600 * 1000;
  const bounds = [
    [midnight, "date.today"],
    [midnight - oneDay, "date.yesterday"],
    [midnight - 7 * oneDay, "date.week"],
    [midnight - 30 * oneDay, "date.month"],
    [-Infinity, "date.older"],
  ];
  const groups = [];
  for (const item of items) {
    const label = t(bounds.find(([from]) => timeOf(item) * 1000 >= from)[1]);
    if (groups.at(-1)?.label !== label) groups.push({ label, items: [] });
    groups.at(-1).items.push(item);
  }
  return groups;
}
