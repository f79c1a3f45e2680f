// Labels of an answer's passages, and opening them in the source dialog.
import { supportingSpans } from "./checks.js";
import { t } from "./i18n.js";
import { dialog } from "./state.js";

/** Opens passage `n` in its document; `check` is the number of the sentence that was clicked, where it was one. */
export function openSource(message, n, check = null) {
  const index = message.passages.findIndex((item) => item.n === n);
  if (index < 0) return;
  const spansByPassage = Object.fromEntries(message.passages.map((item) =>
    [item.n, supportingSpans(message.checks, item.n, item.n === n ? check : null)]));
  dialog.value = { kind: "source", passages: message.passages, index, spansByPassage };
}

/** "refunds.md › Returns, lines 3-9" */
export function sourceLabel({ passage }) {
  const heading = [passage.file, ...passage.heading].join(" › ");
  const location = locationLabel(passage);
  return location ? `${heading}, ${location}` : heading;
}

export function locationLabel(passage) {
  if (passage.page != null) return t("source.page", { n: passage.page });
  if (passage.line_start == null) return "";
  const { line_start: from, line_end: to } = passage;
  if (to == null || to === from) return t("source.line", { n: from });
  return t("source.lines", { from, to });
}
