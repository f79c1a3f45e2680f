// The few keys that work everywhere. Settings lists them.
import { newChat, stopAnswer } from "./actions.js";
import { dialog, drawerOpen, panel } from "./state.js";
import { currentThread } from "./threads.js";

const isApple = /Mac|iPhone|iPad/.test(navigator.platform);
const MOD = isApple ? "⌘" : "Ctrl";

export const SHORTCUTS = [
  [[MOD, "K"], "keys.new"],
  [["/"], "keys.focus"],
  [["Enter"], "keys.send"],
  [["Shift", "Enter"], "keys.newline"],
  [[MOD, "."], "keys.stop"],
  [["Esc"], "keys.close"],
];

const inTextField = (target) => target.closest?.("input, textarea, select, [contenteditable]");

export function installShortcuts() {
  addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.isComposing || dialog.value) return;
    const mod = isApple ? event.metaKey : event.ctrlKey;
    if (mod && !event.shiftKey && !event.altKey && event.key.toLowerCase() === "k") newChat(event);
    else if (mod && event.key === ".") stopRunning(event);
    else if (event.key === "/" && !mod && !inTextField(event.target)) focusComposer(event);
    else if (event.key === "Escape") closeTopmost(event);
  });
}

function stopRunning(event) {
  const messageId = currentThread.value?.streamingId.value;
  if (!messageId) return;
  event.preventDefault();
  stopAnswer(messageId);
}

function focusComposer(event) {
  event.preventDefault();
  document.querySelector(".composer textarea")?.focus();
}

function closeTopmost(event) {
  if (!panel.value && !drawerOpen.value) return;
  event.preventDefault();
  if (panel.value) panel.value = null;
  else drawerOpen.value = false;
}
