// Entry point: starts the session, the connection and the router, and wires their handlers and effects.
import { effect, untracked } from "@preact/signals";
import { render } from "preact";
import { handleRefusal, handleStarted, loadDomains, reconcileOutgoing } from "./actions.js";
import { ApiError, call, setUnauthorizedHandler } from "./api.js";
import { App } from "./components/App.js";
import { checkModel, setModelRecoveredHandler } from "./health.js";
import { html } from "./html.js";
import { t } from "./i18n.js";
import { plainText } from "./markdown.js";
import { cacheMemories, loadMemories, refreshReceiptMemories } from "./memories.js";
import { openChatId } from "./router.js";
import { installShortcuts } from "./shortcuts.js";
import { connect, disconnect } from "./socket.js";
import { announcement, bootError, changeCounters, may, panel, session, stagedFiles, toast } from "./state.js";
import { currentThread, loadChatList, openThread } from "./threads.js";
import { handleResumeRefused, queueEvent, resumeAll, setAnswerHandler } from "./threads.js";
import { followViewport } from "./viewport.js";

const ANNOUNCED_CHARS = 400; // characters of an answer that are announced to a screen reader

async function boot() {
  bootError.value = "";
  try {
    startSession(await call("GET", "/api/session"));
  } catch (error) {
    bootError.value = error.message;
  }
}

function startSession(answer) {
  session.value = answer;
  if (!answer.user) {
    disconnect();
    return;
  }
  connect({ onFrame, onRefused: checkSession });
  loadChatList();
  loadDomains();
  loadMemories();
}

let helloReceived = false;

function onFrame(frame) {
  if (frame.type === "error" && frame.code === "engine_down") checkModel();
  if (frame.type === "hello") {
    checkModel();
    if (helloReceived) handleReconnect();
    else resumeAll(); // answers that a stored chat showed as running before the connection stood
    helloReceived = true;
  } else if (frame.type === "started") {
    handleStarted(frame);
  } else if (frame.type === "changed") {
    handleChanged(frame.what);
  } else if (frame.message_id) {
    queueEvent(frame);
  } else if (frame.type === "error" && !handleRefusal(frame)) {
    if (!(frame.code === "not_found" && handleResumeRefused())) toast(frame.message, { kind: "error" });
  }
}

function handleReconnect() {
  resumeAll();
  reconcileOutgoing();
  loadChatList();
  loadDomains();
  loadMemories();
  for (const change of Object.values(changeCounters)) change.value += 1;
}

function handleChanged(what) {
  if (what === "conversations") loadChatList();
  else if (what === "domains") loadDomains();
  else if (changeCounters[what]) changeCounters[what].value += 1;
}

/** Checks whether the memories in an opened chat's receipts still exist. */
function refreshReceipts(thread) {
  const ids = [...thread.messageSignals.values()]
    .flatMap(({ value }) => value.memories_saved.map((memory) => memory.id));
  if (ids.length) refreshReceiptMemories(thread.id, ids);
}

/** The socket was refused: perhaps the session ended. */
async function checkSession() {
  try {
    const answer = await call("GET", "/api/session");
    if (!answer.user && session.value?.user) startSession(answer);
  } catch (error) {
    if (!(error instanceof ApiError)) throw error; // not reached: the banner says so already
  }
}

setUnauthorizedHandler(checkSession);
setModelRecoveredHandler(() => toast(t("model.back")));
setAnswerHandler((message, saved) => {
  if (saved) {
    cacheMemories(message.memories_saved);
    loadMemories();
    return;
  }
  const text = message.error ? message.error.message : plainText(message.text).slice(0, ANNOUNCED_CHARS);
  announcement.value = t("announce.answer", { text });
});

effect(() => {
  const id = openChatId.value;
  if (session.value?.user) untracked(() => openThread(id));
});
effect(() => {
  const thread = currentThread.value;
  void changeCounters.memories.value; // read, so that the effect runs again with it
  if (thread?.state.value === "ready") untracked(() => refreshReceipts(thread));
});
effect(() => {
  if (changeCounters.memories.value) untracked(loadMemories);
});
effect(() => {
  const title = currentThread.value?.title.value;
  document.title = title ? `${title} · Tailor` : "Tailor";
});

// A file dropped beside the drop zone must not replace the page.
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  if (!event.dataTransfer?.files.length || !may("knowledge:write")) return;
  stagedFiles.value = [...stagedFiles.value, ...event.dataTransfer.files];
  panel.value = "knowledge";
});

followViewport();
installShortcuts();
render(html`<${App} onLogin=${() => location.reload()} onRetry=${boot} />`, document.getElementById("app"));
boot();
