// The WebSocket: connects, reconnects with exponential backoff, and hands over parsed frames. Knows nothing of chats.
import { signal } from "@preact/signals";

/** "connecting" (first time), "open", "lost" (trying again), "closed" (not wanted). */
export const connection = signal("closed");

const INITIAL_BACKOFF_MS = 400;
const MAX_BACKOFF_MS = 10000;
const POLICY_VIOLATION = 1008; // no session, or a foreign origin

let socket = null;
let reconnectTimer = 0;
let attempts = 0;
let handlers = { onFrame() {}, onRefused() {} };

/** `onFrame(frame)` for each frame; `onRefused()` when a handshake fails, to look whether the session ended. */
export function connect(callbacks) {
  handlers = callbacks;
  connection.value = "connecting";
  attempts = 0;
  open();
}

export function disconnect() {
  connection.value = "closed";
  clearTimeout(reconnectTimer);
  socket?.close();
  socket = null;
}

/** False when there is no connection; nothing is kept for later. */
export function send(frame) {
  if (connection.value !== "open" || socket?.readyState !== WebSocket.OPEN) return false;
  socket.send(JSON.stringify(frame));
  return true;
}

/** Reconnects now instead of after the backoff. */
export function reconnectNow() {
  if (connection.value === "closed" || connection.value === "open") return;
  clearTimeout(reconnectTimer);
  open();
}

function open() {
  clearTimeout(reconnectTimer);
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  const opened = new WebSocket(`${scheme}//${location.host}/ws`);
  const previous = socket;
  socket = opened;
  previous?.close();
  let helloReceived = false;
  opened.addEventListener("message", (event) => {
    if (opened !== socket) return;
    let frame;
    try {
      frame = JSON.parse(event.data);
    } catch {
      return; // not of this protocol
    }
    if (frame.type === "hello") {
      helloReceived = true;
      attempts = 0;
      connection.value = "open";
    }
    handlers.onFrame(frame);
  });
  opened.addEventListener("close", (event) => {
    if (opened !== socket || connection.value === "closed") return;
    connection.value = connection.value === "connecting" && attempts === 0 ? "connecting" : "lost";
    if (!helloReceived || event.code === POLICY_VIOLATION) handlers.onRefused();
    if (connection.value !== "closed") scheduleReconnect();
  });
}

function scheduleReconnect() {
  const delay = Math.min(INITIAL_BACKOFF_MS * 2 ** attempts, MAX_BACKOFF_MS);
  attempts += 1;
  reconnectTimer = setTimeout(open, delay * (0.75 + Math.random() / 2));
}

// A network that comes back, or a laptop that wakes, should not wait for the backoff to end.
addEventListener("online", reconnectNow);
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "visible") reconnectNow();
});
