// Theme, language, keys, and what serves this page.
import { call } from "../api.js";
import { number } from "../format.js";
import { html } from "../html.js";
import { langChoice, LANGUAGES, setLang, t } from "../i18n.js";
import { session, setTheme, theme, toast } from "../state.js";
import { SHORTCUTS } from "../shortcuts.js";
import { Segmented } from "./controls.js";
import { Dialog } from "./Dialog.js";
import { shortName } from "./Welcome.js";

export function SettingsDialog() {
  const { user, model, version, login_needed: loginNeeded } = session.value;
  const choices = Object.entries(LANGUAGES).map(([value, label]) => ({ value, label }));
  const languages = [{ value: "", label: t("settings.browser") }, ...choices];
  return html`<${Dialog} title=${t("settings.title")}>
    <section class="setting"><h3>${t("settings.theme")}</h3>
      <${Segmented} label=${t("settings.theme")} value=${theme.value} onChange=${setTheme}
        options=${["", "light", "dark"].map((value) => ({ value, label: t(`theme.${value || "system"}`) }))} />
          </section>
    <section class="setting"><h3>${t("settings.language")}</h3>
      <${Segmented} label=${t("settings.language")} value=${langChoice.value} onChange=${setLang}
        options=${languages} /></section>
    <section class="setting-keys"><h3>${t("settings.keys")}</h3>
      <dl class="keys">${SHORTCUTS.map(([keys, name]) => html`<div key=${name}><dt>${keys.map((key) => html`<kbd
        key=${key}>${key}</kbd>`)}</dt><dd>${t(name)}</dd></div>`)}</dl></section>
    ${model && html`<section><h3>${t("settings.model")}</h3>
      <dl class="facts">
        <div><dt>${t("settings.name")}</dt><dd title=${model.id}>${shortName(model.id)}</dd></div>
        <div><dt>${t("settings.size")}</dt><dd>
          ${t("settings.parameters", { n: number(Math.round(model.parameters / 1e6)) })}</dd></div>
        <div><dt>${t("settings.context")}</dt><dd>${t("settings.tokens", { n: number(model.context_length) })}</dd>
          </div>
        <div><dt>${t("settings.device")}</dt><dd>${model.device} · ${model.dtype}</dd></div>
      </dl>${model.reason && html`<p class="hint">${model.reason}</p>`}</section>`}
    <section class="setting foot"><span>Tailor ${version}</span>
      ${loginNeeded && user && html`<button type="button" class="button small"
        onClick=${logout}>${t("login.out", { name: user.name })}</button>`}</section>
  </${Dialog}>`;
}

async function logout() {
  try {
    await call("POST", "/api/logout");
    if (session.value.logout_url) location.assign(session.value.logout_url); // the provider's session ends, too
    else location.reload();
  } catch (error) {
    toast(error.message, { kind: "error" });
  }
}
