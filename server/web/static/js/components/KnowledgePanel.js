// The knowledge panel: folders and their files with the state of each; uploading and deleting files.
import { useEffect, useRef, useState } from "preact/hooks";
import { bytes, date, number, percent } from "../format.js";
import { cx, html } from "../html.js";
import { t } from "../i18n.js";
import { Icon } from "../icons.js";
import { addFiles, deleteFile, dismissUpload, folderProblem, knowledge, loadKnowledge, uploads } from "../knowledge.js";
import { changeCounters, dialog, may, stagedFiles } from "../state.js";
import { IconButton, ListState } from "./controls.js";
import { IndexHistory } from "./IndexHistory.js";
import { IndexStatus } from "./IndexStatus.js";

const POLL_MS = 1500; // while the index works; changes are also announced
const FILES_SHOWN = 40; // files of a folder at first
const NEW_FOLDER = "\0new"; // no folder can be called so

export function KnowledgePanel() {
  const { state, folders, busy, building, limited, error } = knowledge.value;
  const indexing = busy || building;
  const changeCount = changeCounters.knowledge.value;
  useEffect(() => {
    const timer = setTimeout(loadKnowledge, changeCount ? 120 : 0); // announcements come in bursts
    return () => clearTimeout(timer);
  }, [changeCount]);
  useEffect(() => {
    if (!indexing) return undefined;
    const timer = setInterval(loadKnowledge, POLL_MS);
    return () => clearInterval(timer);
  }, [indexing]);
  return html`
    <${IndexStatus} />
    ${may("knowledge:write") ? html`<${UploadForm} folders=${folders} />` : html`<p class="notice">${t("knowledge.admin")}</p>`}
    <${Uploads} />
    <${ListState} state=${state} error=${error} onRetry=${loadKnowledge}
      empty=${state === "ready" && folders.length === 0 && t("knowledge.empty")} />
    ${may("knowledge:write") && state === "ready" && folders.length > 0 && html`<div class="panel-tools"><button type="button"
      class="button small" onClick=${() => (dialog.value = { kind: "try-search" })}>
      <${Icon} name="search" size=${16} />${t("trial.open")}</button></div>`}
    ${folders.map((folder) => html`<${Folder} key=${folder.name} folder=${folder}
      limit=${limited.find((limit) => limit.folder === folder.name)} />`)}
    ${may("knowledge:write") && state === "ready" && html`<${IndexHistory} />`}`;
}

/** The upload form: a folder, existing or new, and a drop zone. */
function UploadForm({ folders }) {
  const [pickedFolder, setPickedFolder] = useState(null);
  const [newName, setNewName] = useState("");
  const [dragOver, setDragOver] = useState(false);
  const input = useRef(null);
  const choice = pickedFolder ?? folders.find((item) => item.name)?.name ?? NEW_FOLDER;
  const folder = choice === NEW_FOLDER ? newName.trim() : choice;
  const problem = choice === NEW_FOLDER ? folderProblem(folder) : "";
  const acceptFiles = (files) => {
    if (!files.length) return;
    if (problem) stagedFiles.value = [...stagedFiles.value, ...files];
    else {
      addFiles(folder, files);
      setPickedFolder(folder);
    }
  };
  const onDrop = (event) => {
    event.preventDefault();
    event.stopPropagation();
    setDragOver(false);
    acceptFiles([...event.dataTransfer.files]);
  };
  const sendStaged = () => {
    const files = stagedFiles.value;
    stagedFiles.value = [];
    acceptFiles(files);
  };
  return html`<div class="intake">
    <label class="row"><span>${t("knowledge.folder")}</span>
      <select class="field" value=${choice} onChange=${(event) => setPickedFolder(event.target.value)}>
        ${folders.filter((item) => item.name).map((item) => html`<option key=${item.name} value=${item.name}>${item.name}</option>`)}
        <option value=${NEW_FOLDER}>${t("knowledge.new_folder")}</option>
      </select></label>
    ${choice === NEW_FOLDER && html`<label class="row"><span>${t("knowledge.name")}</span>
      <input class="field" value=${newName} maxlength="64" onInput=${(event) => setNewName(event.target.value)}
        aria-invalid=${Boolean(newName && problem)} placeholder=${t("knowledge.name_example")} /></label>`}
    ${newName && problem && html`<p class="hint warn">${problem}</p>`}
    <div class=${cx("drop", dragOver && "over")} onDragOver=${(event) => { event.preventDefault(); setDragOver(true); }}
      onDragLeave=${() => setDragOver(false)} onDrop=${onDrop}>
      <${Icon} name="upload" size=${22} />
      <span>${problem ? t("knowledge.drop_first") : t("knowledge.drop", { folder })}</span>
      <button type="button" class="button small" disabled=${Boolean(problem)}
        onClick=${() => input.current.click()}>${t("knowledge.choose")}</button>
      <input ref=${input} type="file" multiple hidden aria-label=${t("knowledge.choose")}
        onChange=${(event) => { acceptFiles([...event.target.files]); event.target.value = ""; }} />
      <small>${t("knowledge.formats")}</small>
    </div>
    ${stagedFiles.value.length > 0 && html`<div
      class="notice"><span>
      ${t("knowledge.staged", { n: stagedFiles.value.length,
        names: stagedFiles.value.map((file) => file.name).join(", ") })}
      </span>
      <button type="button" class="button small primary" disabled=${Boolean(problem)}
        onClick=${sendStaged}>${t("knowledge.send")}</button>
      <button type="button" class="button small quiet"
        onClick=${() => (stagedFiles.value = [])}>${t("action.cancel")}</button></div>`}
  </div>`;
}

function Uploads() {
  if (!uploads.value.length) return null;
  return html`<ul class="uploads">${uploads.value.map((item) => html`<li key=${item.id}
    class=${cx(item.error && "failed")}>
    <span class="file-name">${item.name}</span>
    ${item.error
      ? html`<${IconButton} icon="close" size=${14} label=${t("action.dismiss")}
        onClick=${() => dismissUpload(item.id)} />
          <span class="reason" role="alert">${item.error}</span>`
      : html`<progress max="1" value=${item.fraction} aria-label=${item.name}></progress>
        <span class="num">${percent(item.fraction)}</span>`}
  </li>`)}</ul>`;
}

function Folder({ folder, limit }) {
  const [showAll, setShowAll] = useState(false);
  const shown = showAll ? folder.files : previewFiles(folder.files);
  const more = folder.files.length - shown.length;
  const chunks = folder.files.reduce((sum, file) => sum + file.chunks, 0);
  return html`<section class="folder" aria-label=${folder.name || "knowledge/"}>
    <h3><${Icon} name="book"
      size=${16} />${folder.name || "knowledge/"}<span>${t("knowledge.count", { files: folder.files.length, chunks })}</span></h3>
    ${limit && html`<p class=${cx("limit", limit.problem && "bad")}><${Icon} name="lock" size=${14} />
      <span>${limit.problem || limitLabel(limit)}</span></p>`}
    ${folder.files.length === 0 && html`<p class="empty">${t("knowledge.folder_without")}</p>`}
    <ul>${shown.map((file) => html`<${FileRow} key=${file.file} folder=${folder.name} file=${file} />`)}</ul>
    ${more > 0 && html`<button type="button" class="link" onClick=${() => setShowAll(true)}>
      ${t("history.more", { n: number(more) })}</button>`}
  </section>`;
}

/** Of a long list its first files, before them those that cannot be read. */
function previewFiles(files) {
  if (files.length <= FILES_SHOWN) return files;
  const failed = files.filter(isUnreadable);
  return [...failed, ...files.filter((file) => !isUnreadable(file))].slice(0, FILES_SHOWN);
}

const isUnreadable = (file) => file.state === "failed" || file.state === "unsupported";

/** Whom a folder is limited to; only an admin is told the names. */
function limitLabel({ users }) {
  if (!users) return t("index.limited");
  return t("index.only", { users: users.join(", ") || t("index.nobody") });
}

function FileRow({ folder, file }) {
  const failed = isUnreadable(file);
  const remove = () => (dialog.value = {
    kind: "confirm", title: t("knowledge.delete_title"), text: t("knowledge.delete_text", { file: file.file }),
    action: t("action.delete"), danger: true, option: t("knowledge.purge"),
    onConfirm: (purge) => deleteFile(folder, file.file, purge),
  });
  return html`<li class=${cx("file", file.state)}>
    <${Icon} name="file" size=${16} />
    <div class="file-main"><span class="file-name" title=${file.file}>${file.file}</span>
      <span class="file-facts"
        title=${date(file.changed_at)}>
        ${bytes(file.bytes)}${file.state === "indexed" && ` · ${t("knowledge.chunks", { n: file.chunks })}`}</span>
      ${file.reason && html`<span class=${cx("reason", !failed && "mild")}>${file.reason}</span>`}</div>
    <span class=${cx("state", file.state)}>${t(`file.${file.state}`)}</span>
    ${may("knowledge:write") && html`<${IconButton} icon="trash" size=${16} label=${t("knowledge.delete", { file: file.file })}
      onClick=${remove} />`}
  </li>`;
}
