// The interface's language. Strings stand in strings/*.js; a component that calls t() re-renders when it changes.
import { signal } from "@preact/signals";
import { en } from "./strings/en.js";
import { ko } from "./strings/ko.js";
import { load, save } from "./storage.js";

export const LANGUAGES = { en: "English", ko: "한국어" };
const STRINGS = { en, ko };

const detected = () => (navigator.language?.toLowerCase().startsWith("ko") ? "ko" : "en");
const chosen = load("lang");

/** "" follows the browser. */
export const langChoice = signal(chosen in STRINGS ? chosen : "");
export const lang = signal(langChoice.value || detected());
document.documentElement.lang = lang.value;

export function setLang(choice) {
  langChoice.value = choice;
  lang.value = choice || detected();
  document.documentElement.lang = lang.value;
  save("lang", choice);
}

/** The string of `key`; {name} is filled from `values`, and a function gets them all. */
export function t(key, values = {}) {
  const entry = STRINGS[lang.value][key] ?? en[key];
  if (entry === undefined) return key;
  if (typeof entry === "function") return entry(values);
  return entry.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}
