// The state of the search in past chats; snippets of its results.
import { signal } from "@preact/signals";
import { call } from "./api.js";
import { latestOnly } from "./latestOnly.js";

const SNIPPET_LEAD = 40;  // characters of a snippet before the first match
const SNIPPET_LENGTH = 170; // of a snippet

/** The query and the turns that match it: state is idle, loading, ready or error. */
export const chatSearch = signal({ query: "", state: "idle", results: [], error: "" });

const fetchResults = latestOnly(
  () => call("GET", `/api/conversations/search?${new URLSearchParams({ query: chatSearch.value.query })}`),
  (response, error) => {
    if (!chatSearch.value.query) return; // cleared meanwhile
    chatSearch.value = error
      ? { ...chatSearch.value, state: "error", results: [], error: error.message }
      : { ...chatSearch.value, state: "ready", results: response.found, error: "" };
  },
);

let debounceTimer = 0;
const DEBOUNCE_MS = 180; // milliseconds without a key

/** Looks for `query` once the user has stopped typing. */
export function searchChats(query) {
  clearTimeout(debounceTimer);
  const trimmed = query.trim();
  if (trimmed === chatSearch.value.query) return;
  if (!trimmed) {
    chatSearch.value = { query: "", state: "idle", results: [], error: "" };
    return;
  }
  chatSearch.value = { ...chatSearch.value, query: trimmed, state: "loading" };
  debounceTimer = setTimeout(fetchResults, DEBOUNCE_MS);
}

export const retryChatSearch = () => {
  chatSearch.value = { ...chatSearch.value, state: "loading" };
  return fetchResults();
};

/** A piece of `text` around the first of the query's words, as [{text, marked}]. Pure. */
export function snippet(text, query) {
  const flat = text.replace(/\s+/g, " ").trim();
  const words = query.split(/[\s"'“”.,?!]+/).filter((word) => word.length > 1).sort((a, b) => b.length - a.length);
  const pattern = words.length ? new RegExp(`(${words.map(escapeRegExp).join("|")})`, "iu") : /($^)/;
  const first = Math.max(0, flat.search(pattern));
  const space = flat.indexOf(" ", Math.max(0, first - SNIPPET_LEAD));
  const start = first <= SNIPPET_LEAD ? 0 : Math.min(first, space + 1); // begins with a word
  const characters = [...flat.slice(start)];
  const ellipsis = characters.length > SNIPPET_LENGTH ? "…" : "";
  const shown = `${start > 0 ? "… " : ""}${characters.slice(0, SNIPPET_LENGTH).join("")}${ellipsis}`;
  return shown.split(new RegExp(pattern.source, "giu")).map((part, index) => ({ text: part, marked: index % 2 === 1 }))
    .filter((part) => part.text);
}

const escapeRegExp = (word) => word.replace(/[\\^$.*+?()[\]{}|/-]/g, "\\$&");
