// Starts the client: session, connection, address, and what ties them together.
import { effect, untracked } from "@preact/signals";
import { render } from "preact";
import { loadDomains, refused, settleOutgoing, started } from "./actions.js";
import { ApiError, call, whenUnauthorized } from "./api.js";
import { App } from "./components/App.js";
import { checkModel, whenModelIsBack } from "./health.js";
import { html } from "./html.js";
import { t } from "./i18n.js";
import { plainText } from "./markdown.js";
import { checkReceipts, loadMemories, note } from "./memories.js";
import { route } from "./router.js";
import { listen } from "./shortcuts.js";
import { connect, disconnect } from "./socket.js";
import { announcement, bootError, changes, panel, session, staged, toast } from "./state.js";
import { current, loadList, openThread, receive, resumeAll, resumeRefused, whenAnswered } from "./threads.js";
import { followViewport } from "./viewport.js";

const ANNOUNCED = 400; // characters of an answer that a screen reader is given at once

async function boot() {
  bootError.value = "";
  try {
    enter(await call("GET", "/api/session"));
  } catch (error) {
    bootError.value = error.message;
  }
}

function enter(given) {
  session.value = given;
  if (!given.user) {
    disconnect();
    return;
  }
  connect({ onFrame, onRefused: checkSession });
  loadList();
  loadDomains();
  loadMemories();
}

let greeted = false;

function onFrame(frame) {
  if (frame.type === "error" && frame.code === "engine_down") checkModel();
  if (frame.type === "hello") {
    checkModel();
    if (greeted) reconnected();
    else resumeAll(); // answers that a stored chat showed as running before the connection stood
    greeted = true;
  } else if (frame.type === "started") {
    started(frame);
  } else if (frame.type === "changed") {
    changed(frame.what);
  } else if (frame.message_id) {
    receive(frame);
  } else if (frame.type === "error" && !refused(frame)) {
    if (!(frame.code === "not_found" && resumeRefused())) toast(frame.message, { kind: "error" });
  }
}

function reconnected() {
  resumeAll();
  settleOutgoing();
  loadList();
  loadDomains();
  loadMemories();
  for (const change of Object.values(changes)) change.value += 1;
}

function changed(what) {
  if (what === "conversations") loadList();
  else if (what === "domains") loadDomains();
  else if (changes[what]) changes[what].value += 1;
}

/** Whether what an opened chat's receipts name is still there. */
function readReceipts(thread) {
  const named = [...thread.cells.values()].flatMap(({ value }) => value.memories_saved.map((memory) => memory.id));
  if (named.length) checkReceipts(thread.id, named);
}

/** The socket was refused: perhaps the session ended. */
async function checkSession() {
  try {
    const given = await call("GET", "/api/session");
    if (!given.user && session.value?.user) enter(given);
  } catch (error) {
    if (!(error instanceof ApiError)) throw error; // not reached: the banner says so already
  }
}

whenUnauthorized(checkSession);
whenModelIsBack(() => toast(t("model.back")));
whenAnswered((message, saved) => {
  if (saved) {
    note(message.memories_saved);
    loadMemories();
    return;
  }
  const text = message.error ? message.error.message : plainText(message.text).slice(0, ANNOUNCED);
  announcement.value = t("announce.answer", { text });
});

effect(() => {
  const id = route.value;
  if (session.value?.user) untracked(() => openThread(id));
});
effect(() => {
  const thread = current.value;
  void changes.memories.value; // read, so that the effect runs again with it
  if (thread?.state.value === "ready") untracked(() => readReceipts(thread));
});
effect(() => {
  if (changes.memories.value) untracked(loadMemories);
});
effect(() => {
  const title = current.value?.title.value;
  document.title = title ? `${title} · Tailor` : "Tailor";
});

// A file dropped beside the drop zone must not replace the page.
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  if (!event.dataTransfer?.files.length || !session.value?.user?.admin) return;
  staged.value = [...staged.value, ...event.dataTransfer.files];
  panel.value = "knowledge";
});

followViewport();
listen();
render(html`<${App} onLogin=${() => location.reload()} onRetry=${boot} />`, document.getElementById("app"));
boot();
