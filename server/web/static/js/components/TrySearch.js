// A box to try searches in, for the person who curates the files: what a chat would be given, and why.
import { useState } from "preact/hooks";
import { call } from "../api.js";
import { html } from "../html.js";
import { t } from "../i18n.js";
import { knowledge } from "../knowledge.js";
import { Dialog } from "./Dialog.js";
import { labelOf } from "../sources.js";
import { Trace } from "./Trace.js";

const EMPTY = { question: "", earlier: "", files: "", kinds: "", since: "", until: "" };
const listOf = (text) => text.split(",").map((item) => item.trim()).filter(Boolean);

export function TrialDialog() {
  const names = knowledge.value.folders.map((folder) => folder.name).filter(Boolean);
  const [form, setForm] = useState(EMPTY);
  const [left, setLeft] = useState([]);   // folders that are not searched
  const [held, setHeld] = useState({ state: "", found: null, error: "" });
  const set = (name) => (event) => setForm({ ...form, [name]: event.target.value });
  const toggle = (name) => setLeft(left.includes(name) ? left.filter((other) => other !== name) : [...left, name]);
  const search = async (event) => {
    event.preventDefault();
    if (!form.question.trim()) return;
    setHeld({ ...held, state: "busy", error: "" });
    const { question, earlier, files, kinds, since, until } = form;
    const body = { question, earlier, files: listOf(files), kinds: listOf(kinds), since: since || null,
      until: until || null, folders: left.length ? names.filter((name) => !left.includes(name)) : null };
    try {
      setHeld({ state: "ready", found: await call("POST", "/api/knowledge/search", body), error: "" });
    } catch (error) {
      setHeld({ state: "error", found: null, error: error.message });
    }
  };
  return html`<${Dialog} title=${t("trial.title")} wide>
    <p class="hint">${t("trial.text")}</p>
    <form class="trial" onSubmit=${search}>
      <label class="wide"><span>${t("trial.question")}</span>
        <input class="field" value=${form.question} onInput=${set("question")} data-autofocus maxlength="4000" /></label>
      <fieldset><legend>${t("trial.folders")}</legend>${names.map((name) => html`<label key=${name} class="tick">
        <input type="checkbox" checked=${!left.includes(name)} onChange=${() => toggle(name)} />
        <span>${name}</span></label>`)}</fieldset>
      <details><summary>${t("trial.filters")}</summary><div class="trial-filters">
        <label class="wide"><span>${t("trial.earlier")}</span>
          <input class="field" value=${form.earlier} onInput=${set("earlier")} maxlength="4000" /></label>
        <label><span>${t("trial.files")}</span><input class="field" value=${form.files} onInput=${set("files")}
          placeholder=${t("trial.files_example")} /></label>
        <label><span>${t("trial.kinds")}</span><input class="field" value=${form.kinds} onInput=${set("kinds")}
          placeholder=${t("trial.kinds_example")} /></label>
        <label><span>${t("trial.since")}</span>
          <input class="field" type="date" value=${form.since} onInput=${set("since")} /></label>
        <label><span>${t("trial.until")}</span>
          <input class="field" type="date" value=${form.until} onInput=${set("until")} /></label>
      </div></details>
      <button type="submit" class="button primary" disabled=${!form.question.trim() || held.state === "busy"}>
        ${t(held.state === "busy" ? "trial.busy" : "trial.go")}</button>
    </form>
    ${held.error && html`<div class="notice error" role="alert"><span>${held.error}</span></div>`}
    ${held.found && html`<${Found} found=${held.found} />`}
  </${Dialog}>`;
}

function Found({ found }) {
  const { passages, trace } = found;
  return html`<section class="found" aria-label=${t("trial.title")}>
    <div role="status"><h3>${passages.length ? t("trial.found", { n: passages.length }) : t("trial.none")}</h3></div>
    ${passages.map((passage, at) => html`<details key=${passage.id} class="section" open=${at === 0}>
      <summary><b>[${at + 1}]</b> ${passage.folder} › ${labelOf({ passage })}</summary>
      <div class="passage" tabindex="0" dir="auto">${passage.text}</div></details>`)}
    <${Trace} trace=${trace} />
  </section>`;
}
