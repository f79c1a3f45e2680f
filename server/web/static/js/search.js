// Searching what was said in past chats.
import { signal } from "@preact/signals";
import { call } from "./api.js";
import { newest } from "./newest.js";

const BEFORE = 40;  // characters of a snippet before the first word that was looked for
const LENGTH = 170; // of a snippet

/** What is looked for, and the turns found: state is idle, loading, ready or error. */
export const sought = signal({ query: "", state: "idle", found: [], error: "" });

const fetchFound = newest(
  () => call("GET", `/api/conversations/search?${new URLSearchParams({ query: sought.value.query })}`),
  (answer, error) => {
    if (!sought.value.query) return; // taken back meanwhile
    sought.value = error
      ? { ...sought.value, state: "error", found: [], error: error.message }
      : { ...sought.value, state: "ready", found: answer.found, error: "" };
  },
);

let timer = 0;
const PAUSE = 180; // milliseconds without a key

/** Looks for `query` once the user has stopped typing. */
export function seek(query) {
  clearTimeout(timer);
  const wanted = query.trim();
  if (wanted === sought.value.query) return;
  if (!wanted) {
    sought.value = { query: "", state: "idle", found: [], error: "" };
    return;
  }
  sought.value = { ...sought.value, query: wanted, state: "loading" };
  timer = setTimeout(fetchFound, PAUSE);
}

export const seekAgain = () => {
  sought.value = { ...sought.value, state: "loading" };
  return fetchFound();
};

/** A piece of `text` around the first of the query's words, as [{text, marked}]. Pure. */
export function snippet(text, query) {
  const whole = text.replace(/\s+/g, " ").trim();
  const words = query.split(/[\s"'“”.,?!]+/).filter((word) => word.length > 1).sort((a, b) => b.length - a.length);
  const wanted = words.length ? new RegExp(`(${words.map(literal).join("|")})`, "iu") : /($^)/;
  const first = Math.max(0, whole.search(wanted));
  const space = whole.indexOf(" ", Math.max(0, first - BEFORE));
  const start = first <= BEFORE ? 0 : Math.min(first, space + 1); // begins with a word
  const cut = [...whole.slice(start)];
  const shown = `${start > 0 ? "… " : ""}${cut.slice(0, LENGTH).join("")}${cut.length > LENGTH ? "…" : ""}`;
  return shown.split(new RegExp(wanted.source, "giu")).map((piece, index) => ({ text: piece, marked: index % 2 === 1 }))
    .filter((piece) => piece.text);
}

const literal = (word) => word.replace(/[\\^$.*+?()[\]{}|/-]/g, "\\$&");
