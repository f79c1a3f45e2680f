// The memory panel: the user's memories, searched and filtered; adding one, pausing, and the sections below.
import { useEffect, useState } from "preact/hooks";
import { number } from "../format.js";
import { html } from "../html.js";
import { t } from "../i18n.js";
import { Icon } from "../icons.js";
import { addMemory, KINDS, loadMemories, memories, setMemoryPaused } from "../memories.js";
import { memoryFilter, setMemoryFilter } from "../memories.js";
import { ListState } from "./controls.js";
import { DeadLetters } from "./DeadLetters.js";
import { MemoryData, MemoryDomains } from "./MemorySettings.js";
import { MemoryRow } from "./MemoryRow.js";

const PAGE_SIZE = 60; // rows drawn at first

export function MemoryPanel() {
  useEffect(() => {
    loadMemories();
    return () => (memoryFilter.value = { query: "", kind: "", past: false });
  }, []);
  return html`
    <${PauseToggle} />
    <${NewMemory} />
    <${MemoryFilter} />
    <${MemoryList} />
    <${DeadLetters} />
    <${MemoryDomains} />
    <${MemoryData} />`;
}

function PauseToggle() {
  const { state, paused } = memories.value;
  const [busy, setBusy] = useState(false);
  if (state !== "ready") return null;
  const toggle = async () => {
    setBusy(true);
    await setMemoryPaused(!paused);
    setBusy(false);
  };
  return html`<div class=${paused ? "notice warning pause" : "notice pause"} role="status">
    <${Icon} name=${paused ? "pause" : "memory"} size=${16} />
    <span>${t(paused ? "memory.is_paused" : "memory.is_on")}</span>
    <button type="button" class="button small" disabled=${busy} onClick=${toggle}>
      ${t(paused ? "memory.resume" : "memory.pause")}</button>
  </div>`;
}

function NewMemory() {
  const { paused } = memories.value;
  const [text, setText] = useState("");
  const [kind, setKind] = useState("fact");
  const [busy, setBusy] = useState(false);
  const submit = async (event) => {
    event.preventDefault();
    if (!text.trim()) return;
    setBusy(true);
    if (await addMemory(text.trim(), kind)) setText("");
    setBusy(false);
  };
  return html`<form class="new-memory" onSubmit=${submit}>
    <input class="field" value=${text} placeholder=${t("memory.placeholder")} aria-label=${t("memory.placeholder")}
      dir="auto" disabled=${paused} onInput=${(event) => setText(event.target.value)} />
    <div class="row-actions">
      <${KindSelect} value=${kind} label=${t("memory.kind")} onChange=${setKind} />
      <button type="submit" class="button" disabled=${busy || paused || !text.trim()}>${t("memory.add")}</button>
    </div>
  </form>`;
}

function KindSelect({ value, label, anyLabel, onChange }) {
  return html`<select class="field" aria-label=${label} value=${value}
    onChange=${(event) => onChange(event.target.value)}>
    ${anyLabel && html`<option value="">${anyLabel}</option>`}
    ${KINDS.map((name) => html`<option key=${name} value=${name}>${t(`kind.${name}`)}</option>`)}</select>`;
}

function MemoryFilter() {
  const { state, total } = memories.value;
  const { query, kind, past } = memoryFilter.value;
  const filtering = query || kind || past;
  if (state === "ready" && !total && !filtering && !memories.value.items.length) return null;
  return html`<div class="find-memory" role="search" aria-label=${t("memory.find")}>
    <input type="search" class="field" placeholder=${t("memory.search")} aria-label=${t("memory.search")} value=${query}
      onInput=${(event) => setMemoryFilter({ query: event.target.value })} />
    <div class="row-actions">
      <${KindSelect} value=${kind} label=${t("memory.filter")} anyLabel=${t("memory.all_kinds")}
        onChange=${(name) => setMemoryFilter({ kind: name })} />
      <label class="check"><input type="checkbox" checked=${past}
        onChange=${(event) => setMemoryFilter({ past: event.target.checked })}
        /><span>${t("memory.show_past")}</span></label>
    </div>
  </div>`;
}

function MemoryList() {
  const { state, items, total, error } = memories.value;
  const { query, kind, past } = memoryFilter.value;
  const [limit, setLimit] = useState(PAGE_SIZE);
  useEffect(() => setLimit(PAGE_SIZE), [query, kind, past]);
  const filtered = Boolean(query.trim() || kind);
  const shown = items.slice(0, limit);
  return html`<section class="found-memories" aria-label=${t("memory.list")} aria-busy=${state === "loading"}>
    ${state === "ready" && error && html`<div class="notice error" role="alert"><span>${error}</span>
      <button type="button" class="button small" onClick=${loadMemories}>${t("action.retry")}</button></div>`}
    <${ListState} state=${state} error=${error} onRetry=${loadMemories}
      empty=${state === "ready" && items.length === 0 && t(filtered ? "memory.none_match" : "memory.empty")} />
    ${state === "ready" && items.length > 0 && html`<p class="hint" role="status">${filtered || past
      ? t("memory.found", { n: number(items.length), count: items.length })
      : t("memory.total", { n: number(total), count: total })}</p>`}
    <ul class="memories">${shown.map((memory) => html`<${MemoryRow} key=${memory.id} memory=${memory} />`)}</ul>
    ${items.length > limit && html`<button type="button" class="button small"
      onClick=${() => setLimit(limit + 4 * PAGE_SIZE)}>${t("memory.more",
        { n: number(items.length - limit) })}</button>`}
  </section>`;
}
