// The page for those who have no session yet.
import { useState } from "preact/hooks";
import { call } from "../api.js";
import { duration } from "../format.js";
import { html } from "../html.js";
import { t } from "../i18n.js";
import { Logo } from "../icons.js";
import { session } from "../state.js";
import { limitMessage } from "./Failure.js";

/** Why it failed, in the reader's language. */
function loginMessage(failure) {
  if (failure.code === "rate_limited") return t("login.wait", { wait: duration(failure.retry_after || 1) });
  if (failure.code === "unauthorized") return t("login.wrong");
  return limitMessage(failure) || failure.message;
}

/** What went wrong at the identity provider, as the way back says in the address. */
function problemElsewhere() {
  const problem = new URLSearchParams(location.search).get("login");
  if (!problem) return "";
  history.replaceState(null, "", location.pathname + location.hash);
  return t(["denied", "unknown", "provider"].includes(problem) ? `login.${problem}` : "login.failed");
}

export function Login({ onDone }) {
  const { oidc } = session.value;
  const [error, setError] = useState(problemElsewhere);
  const [busy, setBusy] = useState(false);
  const submit = async (event) => {
    event.preventDefault();
    const form = new FormData(event.target);
    setBusy(true);
    setError("");
    try {
      onDone(await call("POST", "/api/login", { name: form.get("name").trim(), password: form.get("password") }));
    } catch (failure) {
      setError(loginMessage(failure));
      event.target.elements.password.select();
    } finally {
      setBusy(false);
    }
  };
  return html`<main class="login">
    <form class="login-card" onSubmit=${submit} aria-labelledby="login-title">
      <${Logo} size=${40} />
      <h1 id="login-title">${t("login.title")}</h1>
      <label>${t("login.name")}<input class="field" name="name" autocomplete="username" required autocapitalize="none"
        spellcheck=${false} /></label>
      <label>${t("login.password")}<input class="field" name="password" type="password"
        autocomplete="current-password" required /></label>
      ${error && html`<div class="notice error" role="alert">${error}</div>`}
      <button type="submit" class="button primary" disabled=${busy}>${t(busy ? "login.busy" : "login.action")}</button>
      ${oidc && html`<a class="button" href="/api/oidc/login">${oidc.label || t("login.elsewhere")}</a>`}
    </form>
  </main>`;
}
