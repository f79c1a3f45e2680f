// What came of holding an answer's sentences against its sources: docs/protocol.md, `checks`. Pure.

// Stands before a tag of ours in the answer's text. Nobody types it, and what the model writes of it is taken out first.
const SIGN = "\uE000";
const TAG = /^<\uE000([MUV])(\d*):([\d,]*)\/([\d,]*)>/;

/**
 * The text as it is shown, for `renderBlocks`: a tag for each citation (M: what was cited, what is shown) and around each
 * sentence that nothing carries (U, V), each with the number of its check.
 */
export function withChecks(text, checks) {
  if (!checks.length) return text;
  const plain = text.replaceAll(SIGN, "\uFFFD");
  const at = offsets(plain);
  const edits = [];
  checks.forEach((check, number) => {
    if (isUnsupported(check)) {
      edits.push({ start: at(check.start), end: at(check.start), order: 2, tag: tag("U", number, citedOf(check), []) });
      edits.push({ start: at(check.end), end: at(check.end), order: 0, tag: tag("V", number, [], []) });
    }
    for (const { start, end, cited, shown } of check.marks) {
      edits.push({ start: at(start), end: at(end), order: 1, gone: !shown.length,
        tag: shown.length ? `${start === end ? " " : ""}${tag("M", number, cited, shown)}` : "" });
    }
  });
  edits.sort((one, other) => one.start - other.start || one.order - other.order);
  let shown = "";
  let from = 0;
  for (const edit of edits) {
    const before = plain.slice(from, edit.start);
    shown += (edit.gone ? before.replace(/ +$/, "") : before) + edit.tag;
    from = edit.end;
  }
  return shown + plain.slice(from);
}

const tag = (kind, number, cited, shown) => `<${SIGN}${kind}${number}:${cited.join(",")}/${shown.join(",")}>`;
const numbers = (list) => (list ? list.split(",").map(Number) : []);

/** The tag that `text` begins with, or null: {raw, kind, check, cited, shown}. */
export function readTag(text) {
  const match = TAG.exec(text);
  return match && { raw: match[0], kind: match[1], check: Number(match[2]), cited: numbers(match[3]),
    shown: numbers(match[4]) };
}

export const findTag = (text) => text.indexOf(`<${SIGN}`);

export const isUnsupported = ({ verdict }) => verdict === "unsupported" || verdict === "dropped";
export const citedOf = (check) => [...new Set(check.marks.flatMap((mark) => mark.cited))];
export const shownOf = (check) => [...new Set(check.marks.flatMap((mark) => mark.shown))];

/** "[2] [5]" */
export const marksOf = (list) => list.map((n) => `[${n}]`).join(" ");

/** Where in passage `n` the lines stand that carry the answer: of one check, or of all. [[start, end]] */
export function carriedBy(checks, n, only = null) {
  const chosen = only === null ? checks : checks.slice(only, only + 1);
  const spans = chosen.filter((check) => shownOf(check).includes(n))
    .flatMap((check) => check.support.filter((one) => one.n === n).map(({ start, end }) => [start, end]));
  return merged(spans);
}

/** Spans without overlap, in order. */
function merged(spans) {
  const found = [];
  for (const [start, end] of spans.sort((one, other) => one[0] - other[0])) {
    const last = found.at(-1);
    if (last && start <= last[1]) last[1] = Math.max(last[1], end);
    else found.push([start, end]);
  }
  return found;
}

/** `text` in pieces, [{text, marked}], cut at spans that count Unicode characters. */
export function pieces(text, spans) {
  const at = offsets(text);
  const found = [];
  let from = 0;
  for (const [start, end] of spans) {
    found.push({ text: text.slice(from, at(start)), marked: false });
    found.push({ text: text.slice(at(start), at(end)), marked: true });
    from = at(end);
  }
  found.push({ text: text.slice(from), marked: false });
  return found.filter((piece) => piece.text);
}

/** Python counts Unicode characters, JavaScript counts half of an emoji. */
function offsets(text) {
  if (!/[\uD800-\uDFFF]/.test(text)) return (n) => n;
  const starts = [];
  let at = 0;
  for (const char of text) {
    starts.push(at);
    at += char.length;
  }
  return (n) => starts[n] ?? text.length;
}
