// The user's own account: password, where they are logged in, API keys, everything of theirs as a file, erasing.
import { useEffect, useRef, useState } from "preact/hooks";
import { account, changePassword, endOtherSessions, endSession, eraseAccount, loadAccount } from "../account.js";
import { makeKey, newKey, revokeKey } from "../account.js";
import { copyText } from "../clipboard.js";
import { date, day } from "../format.js";
import { html } from "../html.js";
import { t } from "../i18n.js";
import { Icon } from "../icons.js";
import { dialog } from "../state.js";
import { IconButton, ListState } from "./controls.js";
import { Dialog } from "./Dialog.js";
import { limitMessage } from "./Failure.js";

export function AccountPanel() {
  useEffect(() => {
    loadAccount();
    return () => (newKey.value = "");
  }, []);
  const { state, error, user, groups } = account.value;
  if (state !== "ready") return html`<${ListState} state=${state} error=${error} onRetry=${loadAccount} lines=${6} />`;
  return html`
    <p class="who"><strong>${user.name}</strong>
      ${user.roles.filter((role) => role !== "user").map((role) => html`<span key=${role}
        class="tag">${t(`rights.${role}`)}</span>`)}
      ${groups.map((group) => html`<span key=${group} class="tag">@${group}</span>`)}</p>
    <${Sessions} />
    <${Keys} />
    ${account.value.has_password && html`<${PasswordForm} />`}
    <${OwnData} />`;
}

function Sessions() {
  const { sessions } = account.value;
  return html`<section class="account-part" aria-labelledby="sessions-title">
    <h3 id="sessions-title">${t("account.sessions")}</h3>
    <ul class="openings">${sessions.map((session) => html`<li key=${session.id}>
      <${Icon} name="user" size=${16} />
      <div><span>${browserName(session.agent)} · ${session.address || t("account.no_address")}</span>
        <small>${t("account.seen", { seen: date(session.last_seen), created: day(session.created_at) })}</small></div>
      ${session.current
        ? html`<span class="state loaded">${t("account.here")}</span>`
        : html`<${IconButton} icon="out" size=${16} label=${t("account.end", { name: browserName(session.agent) })}
          onClick=${() => endSession(session.id)} />`}
    </li>`)}</ul>
    ${sessions.length > 1 && html`<button type="button" class="button small"
      onClick=${endOtherSessions}>${t("account.end_others")}</button>`}
  </section>`;
}

/** A browser's or program's short name in its User-Agent. */
export function browserName(agent) {
  const known = [["Edg/", "Edge"], ["OPR/", "Opera"], ["Firefox/", "Firefox"], ["Chrome/", "Chrome"],
    ["Safari/", "Safari"]].find(([mark]) => agent.includes(mark));
  const system = ["Windows", "Android", "iPhone", "iPad", "Mac OS", "Linux"].find((name) => agent.includes(name));
  if (!known) return agent.split(/[\s/]/)[0] || t("account.unknown_device");
  return system ? `${known[1]}, ${system}` : known[1];
}

function Keys() {
  const { keys } = account.value;
  const [name, setName] = useState("");
  const [busy, setBusy] = useState(false);
  const submit = async (event) => {
    event.preventDefault();
    setBusy(true);
    if (await makeKey(name.trim())) setName("");
    setBusy(false);
  };
  const revoke = (key) => (dialog.value = {
    kind: "confirm", title: t("account.revoke_title"), text: t("account.revoke_text", { key: keyLabel(key) }),
    action: t("account.revoke"), danger: true, onConfirm: () => revokeKey(key.id),
  });
  return html`<section class="account-part" aria-labelledby="keys-title">
    <h3 id="keys-title">${t("account.keys")}</h3>
    <p class="hint">${t("account.keys_text")}</p>
    <${NewKey} />
    ${keys.length === 0 && html`<p class="empty">${t("account.no_keys")}</p>`}
    <ul class="openings">${keys.map((key) => html`<li key=${key.id}>
      <${Icon} name="key" size=${16} />
      <div><span>${keyLabel(key)}</span>
        <small>${key.last_used ? t("account.used", { date: date(key.last_used) }) : t("account.never_used")}${" · "}${
          t("account.made", { date: day(key.created_at) })}</small></div>
      <${IconButton} icon="trash" size=${16} label=${t("account.revoke_this", { key: keyLabel(key) })}
        onClick=${() => revoke(key)} />
    </li>`)}</ul>
    <form class="one-line" onSubmit=${submit}>
      <input class="field" value=${name} maxlength="64" placeholder=${t("account.key_name")}
        aria-label=${t("account.key_name")} onInput=${(event) => setName(event.target.value)} />
      <button type="submit" class="button" disabled=${busy}>${t("account.make_key")}</button>
    </form>
  </section>`;
}

const keyLabel = (key) => (key.name ? `${key.name} (${key.prefix}…)` : `${key.prefix || "tlr-"}…`);

function NewKey() {
  if (!newKey.value) return null;
  return html`<div class="notice new-key" role="status">
    <span><strong>${t("account.new_key")}</strong><code>${newKey.value}</code></span>
    <${IconButton} icon="copy" label=${t("action.copy")} onClick=${() => copyText(newKey.value)} />
    <${IconButton} icon="close" label=${t("action.dismiss")} onClick=${() => (newKey.value = "")} />
  </div>`;
}

/** What the server says against a password, in the reader's language where it is known. */
const passwordProblem = (error) => (
  limitMessage(error) || (error.code === "unauthorized" ? t("account.wrong_password") : error.message));

function PasswordForm() {
  const form = useRef(null);
  const [error, setError] = useState("");
  const [busy, setBusy] = useState(false);
  const submit = async (event) => {
    event.preventDefault();
    const fields = new FormData(form.current);
    if (fields.get("new") !== fields.get("again")) return setError(t("account.not_equal"));
    setBusy(true);
    setError("");
    try {
      await changePassword(fields.get("old"), fields.get("new"));
      form.current.reset();
    } catch (failure) {
      setError(passwordProblem(failure));
    }
    return setBusy(false);
  };
  const field = (name, autocomplete) => html`<label>${t(`account.${name}`)}<input class="field" type="password"
    name=${name} autocomplete=${autocomplete} required minlength=${name === "old" ? 1 : 8} maxlength="1024" /></label>`;
  return html`<details class="section account-part"><summary>${t("account.password")}</summary>
    <form class="password-form" ref=${form} onSubmit=${submit}>
      <p class="hint">${t("account.password_text")}</p>
      ${field("old", "current-password")}${field("new", "new-password")}${field("again", "new-password")}
      ${error && html`<div class="notice error" role="alert"><span>${error}</span></div>`}
      <button type="submit" class="button" disabled=${busy}>${t("account.change_password")}</button>
    </form>
  </details>`;
}

function OwnData() {
  return html`<section class="account-part" aria-labelledby="own-data">
    <h3 id="own-data">${t("account.data")}</h3>
    <p class="hint">${t("account.data_text")}</p>
    <div class="memory-data">
      <a class="button small" href="/api/account/export" download><${Icon} name="download"
        size=${16} />${t("account.export")}</a>
      <button type="button" class="button small danger-text"
        onClick=${() => (dialog.value = { kind: "erase-account" })}><${Icon} name="trash"
        size=${16} />${t("account.erase")}</button>
    </div>
  </section>`;
}

/** Asks for the password, since nothing of it comes back. */
export function EraseAccountDialog() {
  const hasPassword = account.value.has_password;
  const [error, setError] = useState("");
  const [busy, setBusy] = useState(false);
  const submit = async (event) => {
    event.preventDefault();
    setBusy(true);
    setError("");
    try {
      await eraseAccount(event.target.elements.password.value);
    } catch (failure) {
      setError(passwordProblem(failure));
      setBusy(false);
    }
  };
  return html`<${Dialog} title=${t("account.erase_title")} role="alertdialog">
    <form class="password-form" onSubmit=${submit}>
      <p>${t("account.erase_text")}</p>
      <label>${t(hasPassword ? "account.old" : "account.own_name")}<input class="field"
        type=${hasPassword ? "password" : "text"} name="password" data-autofocus required maxlength="1024"
        autocomplete=${hasPassword ? "current-password" : "off"} /></label>
      ${error && html`<div class="notice error" role="alert"><span>${error}</span></div>`}
      <div class="dialog-actions">
        <button type="button" class="button" onClick=${() => (dialog.value = null)}>${t("action.cancel")}</button>
        <button type="submit" class="button danger" disabled=${busy}>${t("account.erase")}</button>
      </div>
    </form>
  </${Dialog}>`;
}
