// Accounts, groups and the audit log, as an administrator manages them.
import { signal } from "@preact/signals";
import { call } from "./api.js";
import { change as requestChange } from "./change.js";
import { t } from "./i18n.js";
import { latestOnly } from "./latestOnly.js";

/** GET /api/users and /api/groups. `roles` maps each role to its permissions. */
export const people = signal({ state: "loading", error: "", users: [], roles: {}, groups: [] });
/** GET /api/audit, page after page. `next` is null where there is no more. */
export const auditLog = signal({ state: "loading", error: "", entries: [], next: null });

async function fetchPeople() {
  const [found, { groups }] = await Promise.all([call("GET", "/api/users"), call("GET", "/api/groups")]);
  return { ...found, groups };
}

export const loadPeople = latestOnly(fetchPeople, (result, error) => {
  const previous = people.value;
  people.value = error
    ? { ...previous, state: previous.state === "ready" ? "ready" : "error", error: error.message }
    : { state: "ready", error: "", ...result };
});

/** The first page, or with `more` the one after what is shown. */
export async function loadAudit({ more = false } = {}) {
  const shown = more ? auditLog.value.entries : [];
  const before = more ? `&before=${auditLog.value.next}` : "";
  try {
    const { entries, next } = await call("GET", `/api/audit?limit=50${before}`);
    auditLog.value = { state: "ready", error: "", entries: [...shown, ...entries], next };
  } catch (error) {
    const state = shown.length ? "ready" : "error";
    auditLog.value = { ...auditLog.value, state, error: error.message };
  }
}

const change = (method, path, body, done) => requestChange(method, path, body, done, loadPeople);

const userPath = (name) => `/api/users/${encodeURIComponent(name)}`;
const groupPath = (name) => `/api/groups/${encodeURIComponent(name)}`;

export const addUser = (name, password, roles) =>
  change("POST", "/api/users", { name, password, roles }, t("people.added", { name }));
export const setRoles = (name, roles) => change("PATCH", userPath(name), { roles }, t("people.roles_set", { name }));
export const resetPassword = (name, password) =>
  change("PUT", `${userPath(name)}/password`, { password }, t("people.password_set", { name }));
export const removeUser = (name) =>
  change("DELETE", `${userPath(name)}?confirm=true`, undefined, t("people.removed", { name }));
export const addGroup = (name) => change("POST", "/api/groups", { name }, t("people.group_added", { name }));
export const setMembers = (name, members) =>
  change("PUT", groupPath(name), { members }, t("people.group_set", { name }));
export const removeGroup = (name) => change("DELETE", groupPath(name), undefined, t("people.group_removed", { name }));
