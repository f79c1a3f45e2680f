// Messages that could not be read for memories: listed until they are tried again or let go.
import { signal } from "@preact/signals";
import { call } from "./api.js";
import { newest } from "./newest.js";
import { toast } from "./state.js";

export const deadLetters = signal({ state: "loading", items: [], error: "" });

export const loadDeadLetters = newest(() => call("GET", "/api/memories/dead"), (found, error) => {
  deadLetters.value = error
    ? { ...deadLetters.value, state: "error", error: error.message }
    : { state: "ready", items: found.dead, error: "" };
});

async function change(method, path, done) {
  try {
    await call(method, `/api/memories/dead/${path}`);
    toast(done);
  } catch (error) {
    if (error.status !== 404) toast(error.message, { kind: "error" });
  }
  await loadDeadLetters();
}

export const retryLetter = (letter, done) => change("POST", `${letter.id}/retry`, done);
export const dismissLetter = (letter, done) => change("DELETE", `${letter.id}`, done);
