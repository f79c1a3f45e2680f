// Global interface state apart from the chats: session, open panel and dialog, messages to the user, preferences.
import { signal } from "@preact/signals";
import { load, save } from "./storage.js";

/** GET /api/session, or null before it answered. */
export const session = signal(null);
export const bootError = signal("");
/** Whether the user has that permission, such as "knowledge:write". */
export const may = (permission) => Boolean(session.value?.user?.permissions?.includes(permission));

/** null, "knowledge", "memory", "adapters", "domains", "account" or "people". */
export const panel = signal(null);
export const drawerOpen = signal(false);

/** null or {kind, …}: what the one open dialog shows. */
export const dialog = signal(null);

/** Files dropped outside the knowledge panel, waiting for a folder. */
export const stagedFiles = signal([]);

/** GET /api/domains. */
export const domains = signal({ state: "loading", items: [], problems: [], default: "", error: "" });
/** The domain for the next new chat; null is "auto". */
export const newChatDomain = signal(null);
/** Whether the next new chat is a temporary one. */
export const newChatTemporary = signal(false);

/** Incremented when the server announces a change of a list; panels that show it fetch again. */
export const changeCounters = { knowledge: signal(0), adapters: signal(0), memories: signal(0) };

// ── messages to the user ─────────────────────────────────────────────────────────────────────────

export const toasts = signal([]);
let toastId = 0;

/** kind: "info" or "error"; an action is {label, onClick}. Errors stay longer. */
export function toast(text, { kind = "info", action = null } = {}) {
  const id = ++toastId;
  toasts.value = [...toasts.value.filter((item) => item.text !== text), { id, text, kind, action }].slice(-4);
  setTimeout(() => dismissToast(id), kind === "error" || action ? 9000 : 4500);
}

export function dismissToast(id) {
  toasts.value = toasts.value.filter((item) => item.id !== id);
}

/** For screen readers: said politely, never shown. */
export const announcement = signal("");

// ── preferences ──────────────────────────────────────────────────────────────────────────────────

export const theme = signal(load("theme", ""));

/** "" follows the system. */
export function setTheme(choice) {
  theme.value = choice;
  if (choice) document.documentElement.dataset.theme = choice;
  else delete document.documentElement.dataset.theme;
  save("theme", choice);
}

// ── phone width ──────────────────────────────────────────────────────────────────────────────────

const narrowQuery = matchMedia("(max-width: 760px)");
export const isNarrow = signal(narrowQuery.matches);
narrowQuery.addEventListener("change", () => {
  isNarrow.value = narrowQuery.matches;
  drawerOpen.value = false;
});
