// The state of the knowledge folders and their index, and the files being uploaded.
import { signal } from "@preact/signals";
import { call, upload } from "./api.js";
import { change } from "./change.js";
import { number } from "./format.js";
import { t } from "./i18n.js";
import { latestOnly } from "./latestOnly.js";
import { session, toast } from "./state.js";

export const knowledge = signal({
  state: "loading", folders: [], busy: false, generation: 0, error: "",
  progress: null, held: null, pending: 0, building: false, problem: "", missing: [], limited: [],
});
/** {id, folder, name, fraction, error}: files being sent, and those that were refused. */
export const uploads = signal([]);
/** GET /api/knowledge/generations. */
export const indexHistory = signal({ state: "loading", generations: [], error: "" });

const PARALLEL_UPLOADS = 3;
let nextId = 0;

/** During a long import only its progress: thousands of files need not be listed every second. */
async function fetchStatus() {
  if (knowledge.value.progress) {
    const status = await call("GET", "/api/knowledge?files=false");
    if (status.progress) return status;
  }
  return call("GET", "/api/knowledge");
}

export const loadKnowledge = latestOnly(fetchStatus, (result, error) => {
  const previous = knowledge.value;
  knowledge.value = error
    ? { ...previous, state: previous.state === "ready" ? "ready" : "error", error: error.message }
    : { ...previous, state: "ready", error: "", ...result };
});

export const loadIndexHistory = latestOnly(() => call("GET", "/api/knowledge/generations"), (result, error) => {
  const previous = indexHistory.value;
  indexHistory.value = error
    ? { ...previous, state: previous.state === "ready" ? "ready" : "error", error: error.message }
    : { state: "ready", error: "", ...result };
});

// ── generations ──────────────────────────────────────────────────────────────────────────────────

const command = (path, body, done) =>
  change("POST", `/api/knowledge/${path}`, body, done, () => Promise.all([loadKnowledge(), loadIndexHistory()]));

export const rollBackIndex = (generation) => command("rollback", { generation }, t("history.rolled_back", { n: generation }));
export const followFiles = () => command("follow", undefined, t("index.followed"));
export const rebuildIndex = () => command("rebuild", undefined, t("history.rebuilding"));

// ── files ────────────────────────────────────────────────────────────────────────────────────────

/** Why this can be no folder's name, or "". The server decides in the end. */
export function folderProblem(name) {
  if (!name) return t("knowledge.folder_empty");
  const named = name.normalize("NFC");
  const bad = [...named].length > 64 || named !== named.trim() || /[/\\<>:"|?*\p{C}]|^\.|\.$/u.test(named);
  return bad ? t("knowledge.folder_bad") : "";
}

/** Sends files to a folder, a few at a time; each succeeds or fails alone. */
export async function addFiles(folder, files) {
  const queue = [...files].map((file) => ({ id: ++nextId, folder, name: file.name, fraction: 0, error: "", file }));
  uploads.value = [...uploads.value, ...queue];
  const worker = async () => {
    for (let item = queue.shift(); item; item = queue.shift()) await uploadOne(item);
  };
  await Promise.all(Array.from({ length: PARALLEL_UPLOADS }, worker));
  await loadKnowledge();
}

async function uploadOne({ id, folder, file }) {
  const limit = session.value.max_upload_bytes;
  if (file.size > limit) {
    updateUpload(id, { error: t("knowledge.too_large", { limit: number(limit) }) });
    return;
  }
  try {
    const path = `/api/knowledge/${encodeURIComponent(folder)}`;
    const { files } = await upload(path, file, (fraction) => updateUpload(id, { fraction }));
    if (files[0]?.error) updateUpload(id, { error: files[0].error.message });
    else dismissUpload(id);
  } catch (error) {
    updateUpload(id, { error: error.message });
  }
}

function updateUpload(id, changes) {
  uploads.value = uploads.value.map((item) => (item.id === id ? { ...item, ...changes } : item));
}

export function dismissUpload(id) {
  uploads.value = uploads.value.filter((item) => item.id !== id);
}

/** `purge`: from the generations that are kept for going back, too. */
export async function deleteFile(folder, file, purge) {
  const path = `/api/knowledge/${encodeURIComponent(folder)}/${file.split("/").map(encodeURIComponent).join("/")}`;
  try {
    const { held_by: heldBy = [] } = (await call("DELETE", purge ? `${path}?purge=true` : path)) ?? {};
    toast(t(heldBy.length ? "knowledge.deleted_held" : "knowledge.deleted", { file, n: heldBy.length }));
  } catch (error) {
    toast(error.message, { kind: "error" });
  }
  await loadKnowledge();
}
