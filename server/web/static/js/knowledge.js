// The state of the knowledge folders, and the files on their way there.
import { signal } from "@preact/signals";
import { call, upload } from "./api.js";
import { number } from "./format.js";
import { t } from "./i18n.js";
import { newest } from "./newest.js";
import { session, toast } from "./state.js";

export const knowledge = signal({
  state: "loading", folders: [], busy: false, generation: 0, error: "",
  progress: null, held: null, pending: 0, building: false, problem: "", limited: [],
});
/** {id, folder, name, share, error}: files being sent, and those that were refused. */
export const uploads = signal([]);
/** GET /api/knowledge/generations. */
export const history = signal({ state: "loading", generations: [], error: "" });

const AT_ONCE = 3;
let nextId = 0;

/** While a long import is under way only how far it is: thousands of files need not be listed every second. */
async function fetchStatus() {
  if (knowledge.value.progress) {
    const brief = await call("GET", "/api/knowledge?files=false");
    if (brief.progress) return brief;
  }
  return call("GET", "/api/knowledge");
}

export const loadKnowledge = newest(fetchStatus, (found, error) => {
  const held = knowledge.value;
  knowledge.value = error
    ? { ...held, state: held.state === "ready" ? "ready" : "error", error: error.message }
    : { ...held, state: "ready", error: "", ...found };
});

export const loadHistory = newest(() => call("GET", "/api/knowledge/generations"), (found, error) => {
  const known = history.value;
  history.value = error
    ? { ...known, state: known.state === "ready" ? "ready" : "error", error: error.message }
    : { state: "ready", error: "", ...found };
});

// ── generations ──────────────────────────────────────────────────────────────────────────────────

async function command(path, body, done) {
  try {
    await call("POST", `/api/knowledge/${path}`, body);
    toast(done);
  } catch (error) {
    toast(error.message, { kind: "error" });
  }
  await Promise.all([loadKnowledge(), loadHistory()]);
}

export const rollBack = (generation) => command("rollback", { generation }, t("history.gone", { n: generation }));
export const follow = () => command("follow", undefined, t("index.followed"));
export const rebuild = () => command("rebuild", undefined, t("history.rebuilding"));

// ── files ────────────────────────────────────────────────────────────────────────────────────────

/** Why this can be no folder's name, or "". The server decides in the end. */
export function folderProblem(name) {
  if (!name) return t("knowledge.folder_empty");
  return /[/\\<>:"|?*\0]|^\.|\.$/.test(name) ? t("knowledge.folder_bad") : "";
}

/** Sends files to a folder, a few at a time; each succeeds or fails alone. */
export async function addFiles(folder, files) {
  const waiting = [...files].map((file) => ({ id: ++nextId, folder, name: file.name, share: 0, error: "", file }));
  uploads.value = [...uploads.value, ...waiting];
  const next = async () => {
    for (let item = waiting.shift(); item; item = waiting.shift()) await sendOne(item);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, next));
  await loadKnowledge();
}

async function sendOne({ id, folder, file }) {
  const limit = session.value.max_upload_bytes;
  if (file.size > limit) {
    update(id, { error: t("knowledge.too_large", { limit: number(limit) }) });
    return;
  }
  try {
    const path = `/api/knowledge/${encodeURIComponent(folder)}`;
    const { files } = await upload(path, file, (share) => update(id, { share }));
    if (files[0]?.error) update(id, { error: files[0].error.message });
    else dismissUpload(id);
  } catch (error) {
    update(id, { error: error.message });
  }
}

function update(id, changes) {
  uploads.value = uploads.value.map((item) => (item.id === id ? { ...item, ...changes } : item));
}

export function dismissUpload(id) {
  uploads.value = uploads.value.filter((item) => item.id !== id);
}

export async function deleteFile(folder, file) {
  const path = `/api/knowledge/${encodeURIComponent(folder)}/${file.split("/").map(encodeURIComponent).join("/")}`;
  try {
    await call("DELETE", path);
    toast(t("knowledge.deleted", { file }));
  } catch (error) {
    toast(error.message, { kind: "error" });
  }
  await loadKnowledge();
}
