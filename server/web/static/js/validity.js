// The validity period of a memory, in words. Pure but for the reader's language.
import { day } from "./format.js";
import { t } from "./i18n.js";

export const isPast = (memory, now = Date.now() / 1000) =>
  Boolean(memory.replaced_by) || (memory.valid_to != null && memory.valid_to <= now);

/** "since …", "until …", "… – …", the day of what lasts one, or "" where no time is known. */
export function validityLabel({ valid_from: from, valid_to: to }) {
  if (from != null && to != null) {
    const last = Math.max(from, to - 1); // a day ends where the next begins
    return day(from) === day(last) ? day(from) : t("memory.between", { from: day(from), to: day(last) });
  }
  if (from != null) return t("memory.since", { day: day(from) });
  return to != null ? t("memory.until", { day: day(to) }) : "";
}
