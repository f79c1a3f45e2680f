// The few keys that work everywhere. Settings lists them.
import { newChat, stop } from "./actions.js";
import { dialog, drawer, panel } from "./state.js";
import { current } from "./threads.js";

const apple = /Mac|iPhone|iPad/.test(navigator.platform);
const MOD = apple ? "⌘" : "Ctrl";

export const SHORTCUTS = [
  [[MOD, "K"], "keys.new"],
  [["/"], "keys.focus"],
  [["Enter"], "keys.send"],
  [["Shift", "Enter"], "keys.newline"],
  [[MOD, "."], "keys.stop"],
  [["Esc"], "keys.close"],
];

const typing = (target) => target.closest?.("input, textarea, select, [contenteditable]");

export function listen() {
  addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.isComposing || dialog.value) return;
    const mod = apple ? event.metaKey : event.ctrlKey;
    if (mod && !event.shiftKey && !event.altKey && event.key.toLowerCase() === "k") newChat(event);
    else if (mod && event.key === ".") stopRunning(event);
    else if (event.key === "/" && !mod && !typing(event.target)) focusComposer(event);
    else if (event.key === "Escape") closeOne(event);
  });
}

function stopRunning(event) {
  const running = current.value?.running.value;
  if (!running) return;
  event.preventDefault();
  stop(running);
}

function focusComposer(event) {
  event.preventDefault();
  document.querySelector(".composer textarea")?.focus();
}

function closeOne(event) {
  if (!panel.value && !drawer.value) return;
  event.preventDefault();
  if (panel.value) panel.value = null;
  else drawer.value = false;
}
