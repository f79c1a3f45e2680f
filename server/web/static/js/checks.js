// The citation checks of an answer, sentence by sentence, as tags in its text: docs/protocol.md, `checks`. Pure.

// Begins each inserted tag: a private-use character, removed from the model's text first.
const TAG_MARKER = "\uE000";
const TAG_PATTERN = /^<\uE000([MUV])(\d*):([\d,]*)\/([\d,]*)>/;

/**
 * The text with tags, for `renderBlocks`: one for each citation (M: what was cited, what is shown) and a pair around
 * each sentence that no source supports (U, V), each with the number of its check.
 */
export function insertCheckTags(text, checks) {
  if (!checks.length) return text;
  const cleaned = text.replaceAll(TAG_MARKER, "\uFFFD");
  const toIndex = codeUnitOffsets(cleaned);
  const edits = [];
  checks.forEach((check, number) => {
    if (isUnsupported(check)) {
      edits.push({ start: toIndex(check.start), end: toIndex(check.start), order: 2,
        tag: makeTag("U", number, citedNumbers(check), []) });
      edits.push({ start: toIndex(check.end), end: toIndex(check.end), order: 0, tag: makeTag("V", number, [], []) });
    }
    for (const { start, end, cited, shown } of check.marks) {
      edits.push({ start: toIndex(start), end: toIndex(end), order: 1, removed: !shown.length,
        tag: shown.length ? `${start === end ? " " : ""}${makeTag("M", number, cited, shown)}` : "" });
    }
  });
  edits.sort((one, other) => one.start - other.start || one.order - other.order);
  let tagged = "";
  let position = 0;
  for (const edit of edits) {
    const before = cleaned.slice(position, edit.start);
    tagged += (edit.removed ? before.replace(/ +$/, "") : before) + edit.tag;
    position = edit.end;
  }
  return tagged + cleaned.slice(position);
}

const makeTag = (kind, number, cited, shown) => `<${TAG_MARKER}${kind}${number}:${cited.join(",")}/${shown.join(",")}>`;
const parseNumbers = (list) => (list ? list.split(",").map(Number) : []);

/** The tag that `text` begins with, or null: {raw, kind, check, cited, shown}. */
export function readTag(text) {
  const match = TAG_PATTERN.exec(text);
  return match && { raw: match[0], kind: match[1], check: Number(match[2]), cited: parseNumbers(match[3]),
    shown: parseNumbers(match[4]) };
}

export const findTag = (text) => text.indexOf(`<${TAG_MARKER}`);

export const isUnsupported = ({ verdict }) => verdict === "unsupported" || verdict === "dropped";
export const citedNumbers = (check) => [...new Set(check.marks.flatMap((mark) => mark.cited))];
export const shownNumbers = (check) => [...new Set(check.marks.flatMap((mark) => mark.shown))];

/** "[2] [5]" */
export const formatCitations = (ns) => ns.map((n) => `[${n}]`).join(" ");

/** The spans of passage `n` that support the answer, by one check or by all: [[start, end]]. */
export function supportingSpans(checks, n, checkIndex = null) {
  const selected = checkIndex === null ? checks : checks.slice(checkIndex, checkIndex + 1);
  const spans = selected.filter((check) => shownNumbers(check).includes(n))
    .flatMap((check) => check.support.filter((span) => span.n === n).map(({ start, end }) => [start, end]));
  return mergeSpans(spans);
}

/** Spans without overlap, in order. */
function mergeSpans(spans) {
  const merged = [];
  for (const [start, end] of spans.sort((a, b) => a[0] - b[0])) {
    const last = merged.at(-1);
    if (last && start <= last[1]) last[1] = Math.max(last[1], end);
    else merged.push([start, end]);
  }
  return merged;
}

/** `text` in pieces, [{text, marked}], cut at spans that count Unicode characters. */
export function splitAtSpans(text, spans) {
  const toIndex = codeUnitOffsets(text);
  const parts = [];
  let position = 0;
  for (const [start, end] of spans) {
    parts.push({ text: text.slice(position, toIndex(start)), marked: false });
    parts.push({ text: text.slice(toIndex(start), toIndex(end)), marked: true });
    position = toIndex(end);
  }
  parts.push({ text: text.slice(position), marked: false });
  return parts.filter((piece) => piece.text);
}

/** Python counts Unicode characters, JavaScript counts half of an emoji. */
function codeUnitOffsets(text) {
  if (!/[\uD800-\uDFFF]/.test(text)) return (n) => n;
  const starts = [];
  let offset = 0;
  for (const char of text) {
    starts.push(offset);
    offset += char.length;
  }
  return (n) => starts[n] ?? text.length;
}
