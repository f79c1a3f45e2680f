// Adapters: which are there, which are loaded, and why one cannot be.
import { useEffect, useState } from "preact/hooks";
import { signal } from "@preact/signals";
import { call } from "../api.js";
import { bytes } from "../format.js";
import { cx, html } from "../html.js";
import { t } from "../i18n.js";
import { latestOnly } from "../latestOnly.js";
import { changeCounters, may, toast } from "../state.js";
import { ListState } from "./controls.js";

const adapterList = signal({ state: "loading", adapters: [], max_loras: 0, error: "" });

const load = latestOnly(() => call("GET", "/api/adapters"), (result, error) => {
  adapterList.value = error
    ? { ...adapterList.value, state: adapterList.value.state === "ready" ? "ready" : "error", error: error.message }
    : { state: "ready", error: "", ...result };
});

export function AdapterPanel() {
  const changeCount = changeCounters.adapters.value;
  useEffect(() => { load(); }, [changeCount]);
  const { state, adapters, max_loras: maxLoaded, error } = adapterList.value;
  const loaded = adapters.filter((adapter) => adapter.state === "loaded").length;
  return html`
    <${ListState} state=${state} error=${error} onRetry=${load}
      empty=${state === "ready" && adapters.length === 0 && t("adapters.empty")} />
    ${adapters.length > 0 && html`<p class="hint">${t("adapters.loaded", { n: loaded, most: maxLoaded })}</p>`}
    <ul class="adapters">${adapters.map((adapter) => html`<${AdapterRow} key=${`${adapter.name}@${adapter.version}`}
      adapter=${adapter} all=${adapters} />`)}</ul>`;
}

function AdapterRow({ adapter, all }) {
  const [busy, setBusy] = useState(false);
  // Older versions are named with theirs; the bare name is the newest.
  const isNewest = all.find((other) => other.name === adapter.name) === adapter;
  const name = isNewest ? adapter.name : `${adapter.name}@${adapter.version}`;
  const change = async (path) => {
    setBusy(true);
    try {
      await call("POST", path, { lora_name: name });
    } catch (error) {
      toast(error.message, { kind: "error" });
    }
    await load();
    setBusy(false);
  };
  const loading = adapter.state === "loading" || busy;
  const facts = [
    adapter.rank > 0 && t("adapters.rank", { n: adapter.rank }),
    adapter.modules > 0 && t("adapters.modules", { n: adapter.modules }),
    adapter.bytes > 0 && bytes(adapter.bytes),
    adapter.in_use > 0 && t("adapters.in_use", { n: adapter.in_use }),
  ].filter(Boolean);
  return html`<li class=${cx("adapter", adapter.state)}>
    <div class="adapter-head"><strong>${adapter.name}</strong><span class="version">${adapter.version}</span>
      <span class=${cx("state", adapter.state)}>${t(`adapter.${adapter.state}`)}</span></div>
    ${adapter.description && html`<p class="adapter-text">${adapter.description}</p>`}
    ${adapter.reason && html`<p class="reason">${adapter.reason}</p>`}
    <div class="adapter-foot"><span>${facts.join(" · ")}</span>
      ${may("adapters:load") && adapter.state === "loaded" && html`<button type="button" class="button small" disabled=${loading}
        aria-label=${t("adapters.unload_this", { name })}
        onClick=${() => change("/v1/unload_lora_adapter")}>${t("adapters.unload")}</button>`}
      ${may("adapters:load") && (adapter.state === "available" || adapter.state === "loading") && html`<button type="button"
        class="button small" disabled=${loading}
        aria-label=${t("adapters.load_this", { name })}
          onClick=${() => change("/v1/load_lora_adapter")}>
          ${t(loading ? "adapter.loading" : "adapters.load")}</button>`}
    </div>
  </li>`;
}
