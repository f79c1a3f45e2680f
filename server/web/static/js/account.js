// The user's own account: sessions, keys, password, erasing.
import { signal } from "@preact/signals";
import { call } from "./api.js";
import { change as requestChange } from "./change.js";
import { t } from "./i18n.js";
import { latestOnly } from "./latestOnly.js";
import { toast } from "./state.js";

/** GET /api/account. */
export const account = signal({ state: "loading", error: "", sessions: [], keys: [], groups: [], user: null });
/** The secret of a key just made: it is shown once. */
export const newKey = signal("");

export const loadAccount = latestOnly(() => call("GET", "/api/account"), (result, error) => {
  const previous = account.value;
  account.value = error
    ? { ...previous, state: previous.state === "ready" ? "ready" : "error", error: error.message }
    : { state: "ready", error: "", ...result };
});

const change = (method, path, body, done) => requestChange(method, path, body, done, loadAccount);

const part = encodeURIComponent;

export const endSession = (id) => change("DELETE", `/api/account/sessions/${part(id)}`, undefined, t("account.ended"));
export const endOtherSessions = () => change("DELETE", "/api/account/sessions", undefined, t("account.ended_others"));
export const revokeKey = (id) => change("DELETE", `/api/account/keys/${part(id)}`, undefined, t("account.revoked"));

export async function makeKey(name) {
  try {
    const { secret } = await call("POST", "/api/account/keys", { name });
    newKey.value = secret;
    await loadAccount();
    return true;
  } catch (error) {
    toast(error.message, { kind: "error" });
    return false;
  }
}

/** Throws what the server says against it. */
export async function changePassword(old, next) {
  await call("PUT", "/api/account/password", { old, new: next });
  toast(t("account.password_changed"));
  newKey.value = "";
  await loadAccount();
}

/** Throws what the server says against it; else the page begins anew, at the login. */
export async function eraseAccount(password) {
  await call("POST", "/api/account/erase", { password });
  location.reload();
}
