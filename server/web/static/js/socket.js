// The WebSocket: connects, reconnects with growing pauses, and hands over parsed frames. Knows nothing of chats.
import { signal } from "@preact/signals";

/** "connecting" (first time), "open", "lost" (trying again), "closed" (not wanted). */
export const connection = signal("closed");

const FIRST_PAUSE = 400;
const LONGEST_PAUSE = 10000;
const POLICY_VIOLATION = 1008; // no session, or a foreign origin

let socket = null;
let timer = 0;
let attempts = 0;
let handlers = { onFrame() {}, onRefused() {} };

/** `onFrame(frame)` for each frame; `onRefused()` when a handshake fails, to look whether the session ended. */
export function connect(given) {
  handlers = given;
  connection.value = "connecting";
  attempts = 0;
  open();
}

export function disconnect() {
  connection.value = "closed";
  clearTimeout(timer);
  socket?.close();
  socket = null;
}

/** False when there is no connection; nothing is kept for later. */
export function send(frame) {
  if (connection.value !== "open" || socket?.readyState !== WebSocket.OPEN) return false;
  socket.send(JSON.stringify(frame));
  return true;
}

/** Tries now instead of after the pause. */
export function retryNow() {
  if (connection.value === "closed" || connection.value === "open") return;
  clearTimeout(timer);
  open();
}

function open() {
  clearTimeout(timer);
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  const mine = new WebSocket(`${scheme}//${location.host}/ws`);
  const previous = socket;
  socket = mine;
  previous?.close();
  let greeted = false;
  mine.addEventListener("message", (event) => {
    if (mine !== socket) return;
    let frame;
    try {
      frame = JSON.parse(event.data);
    } catch {
      return; // not of this protocol
    }
    if (frame.type === "hello") {
      greeted = true;
      attempts = 0;
      connection.value = "open";
    }
    handlers.onFrame(frame);
  });
  mine.addEventListener("close", (event) => {
    if (mine !== socket || connection.value === "closed") return;
    connection.value = connection.value === "connecting" && attempts === 0 ? "connecting" : "lost";
    if (!greeted || event.code === POLICY_VIOLATION) handlers.onRefused();
    if (connection.value !== "closed") schedule();
  });
}

function schedule() {
  const pause = Math.min(FIRST_PAUSE * 2 ** attempts, LONGEST_PAUSE);
  attempts += 1;
  timer = setTimeout(open, pause * (0.75 + Math.random() / 2));
}

// A network that comes back, or a laptop that wakes, should not wait for the pause to end.
addEventListener("online", retryNow);
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "visible") retryNow();
});
