// A dialog for trying searches, for the person who curates the files: the passages a chat would get, and why.
import { useState } from "preact/hooks";
import { call } from "../api.js";
import { html } from "../html.js";
import { t } from "../i18n.js";
import { knowledge } from "../knowledge.js";
import { Dialog } from "./Dialog.js";
import { sourceLabel } from "../sources.js";
import { Trace } from "./Trace.js";

const EMPTY_FORM = { question: "", earlier: "", files: "", kinds: "", since: "", until: "" };
const splitList = (text) => text.split(",").map((item) => item.trim()).filter(Boolean);

export function TrySearchDialog() {
  const folderNames = knowledge.value.folders.map((folder) => folder.name).filter(Boolean);
  const [form, setForm] = useState(EMPTY_FORM);
  const [excluded, setExcluded] = useState([]);   // folders that are not searched
  const [search, setSearch] = useState({ state: "", result: null, error: "" });
  const setField = (name) => (event) => setForm({ ...form, [name]: event.target.value });
  const toggle = (name) => setExcluded(
    excluded.includes(name) ? excluded.filter((other) => other !== name) : [...excluded, name],
  );
  const submit = async (event) => {
    event.preventDefault();
    if (!form.question.trim()) return;
    setSearch({ ...search, state: "busy", error: "" });
    const { question, earlier, files, kinds, since, until } = form;
    const body = { question, earlier, files: splitList(files), kinds: splitList(kinds), since: since || null,
      until: until || null, folders: excluded.length ? folderNames.filter((name) => !excluded.includes(name)) : null };
    try {
      setSearch({ state: "ready", result: await call("POST", "/api/knowledge/search", body), error: "" });
    } catch (error) {
      setSearch({ state: "error", result: null, error: error.message });
    }
  };
  return html`<${Dialog} title=${t("trial.title")} wide>
    <p class="hint">${t("trial.text")}</p>
    <form class="trial" onSubmit=${submit}>
      <label class="wide"><span>${t("trial.question")}</span>
        <input class="field" value=${form.question} onInput=${setField("question")} data-autofocus
          maxlength="4000" /></label>
      <fieldset><legend>${t("trial.folders")}</legend>${folderNames.map((name) => html`<label key=${name} class="tick">
        <input type="checkbox" checked=${!excluded.includes(name)} onChange=${() => toggle(name)} />
        <span>${name}</span></label>`)}</fieldset>
      <details><summary>${t("trial.filters")}</summary><div class="trial-filters">
        <label class="wide"><span>${t("trial.earlier")}</span>
          <input class="field" value=${form.earlier} onInput=${setField("earlier")} maxlength="4000" /></label>
        <label><span>${t("trial.files")}</span><input class="field" value=${form.files} onInput=${setField("files")}
          placeholder=${t("trial.files_example")} /></label>
        <label><span>${t("trial.kinds")}</span><input class="field" value=${form.kinds} onInput=${setField("kinds")}
          placeholder=${t("trial.kinds_example")} /></label>
        <label><span>${t("trial.since")}</span>
          <input class="field" type="date" value=${form.since} onInput=${setField("since")} /></label>
        <label><span>${t("trial.until")}</span>
          <input class="field" type="date" value=${form.until} onInput=${setField("until")} /></label>
      </div></details>
      <button type="submit" class="button primary" disabled=${!form.question.trim() || search.state === "busy"}>
        ${t(search.state === "busy" ? "trial.busy" : "trial.submit")}</button>
    </form>
    ${search.error && html`<div class="notice error" role="alert"><span>${search.error}</span></div>`}
    ${search.result && html`<${SearchResult} result=${search.result} />`}
  </${Dialog}>`;
}

function SearchResult({ result }) {
  const { passages, trace } = result;
  return html`<section class="found" aria-label=${t("trial.title")}>
    <div role="status"><h3>${passages.length ? t("trial.found", { n: passages.length }) : t("trial.none")}</h3></div>
    ${passages.map((passage, index) => html`<details key=${passage.id} class="section" open=${index === 0}>
      <summary><b>[${index + 1}]</b> ${passage.folder} › ${sourceLabel({ passage })}</summary>
      <div class="passage" tabindex="0" dir="auto">${passage.text}</div></details>`)}
    <${Trace} trace=${trace} />
  </section>`;
}
