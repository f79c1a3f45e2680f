// Above an answer: which domain answered and why, with which adapter, and the memories it was given.
import { useState } from "preact/hooks";
import { decimal } from "../format.js";
import { html } from "../html.js";
import { t } from "../i18n.js";
import { Icon } from "../icons.js";
import { dialog, domains } from "../state.js";
import { isServers } from "./Numbers.js";

export function RouteLine({ message }) {
  const [open, setOpen] = useState(false);
  const { route, memories_used: memories, chats_used: chats } = message;
  if (!route && !memories.length && !chats.length) return null;
  return html`<div class="route">
    ${route && html`<button type="button" class="route-button" aria-expanded=${open} onClick=${() => setOpen(!open)}>
      <strong>${message.domain_title || titleOf(route.domain)}</strong><span class="why">${reasonOf(route)}</span>
      <${Icon} name="down" size=${14} />
    </button>`}
    ${message.adapter && !isServers(message) && html`<span class="chip" title=${t("route.adapter", { name: message.adapter })}>
      <${Icon} name="layers" size=${14} />${message.adapter}</span>`}
    ${memories.length > 0 && html`<button type="button" class="chip"
      onClick=${() => (dialog.value = { kind: "memories", memories })}>
      <${Icon} name="memory" size=${14} />${t("used.chip", { n: memories.length })}</button>`}
    ${chats.length > 0 && html`<button type="button" class="chip"
      onClick=${() => (dialog.value = { kind: "chats", turns: chats })}>
      <${Icon} name="chat" size=${14} />${t("quoted.chip", { n: chats.length })}</button>`}
    ${open && html`<${Candidates} route=${route} />`}
  </div>`;
}

const titleOf = (name) => domains.value.items.find((item) => item.name === name)?.title ?? name;

/** Why this domain, in a few words. */
export function reasonOf(route) {
  const threshold = decimal(route.threshold, 2);
  if (route.how === "similar") return t("route.similar", { score: decimal(route.score ?? 0, 2), threshold });
  if (route.how === "fallback") {
    const best = route.candidates[0]?.score;
    return best === undefined ? t("route.fallback") : t("route.fallback_best", { score: decimal(best, 2), threshold });
  }
  return t(`route.${route.how}`);
}

function Candidates({ route }) {
  if (!route.candidates.length) return html`<p class="candidates none">${t(`route.${route.how}_long`)}</p>`;
  return html`<div class="candidates"><table>
    <thead><tr><th>${t("route.domain")}</th><th>${t("route.score")}</th><th>${t("route.example")}</th></tr></thead>
    <tbody>${route.candidates.map((candidate) => html`<tr key=${candidate.domain}
      class=${candidate.domain === route.domain ? "won" : ""}>
      <td>${titleOf(candidate.domain)}</td>
      <td class="score"><meter min="0" max="1" value=${Math.max(0, candidate.score)} low=${route.threshold}
        aria-hidden="true"></meter>${decimal(candidate.score, 2)}</td>
      <td class="example">${candidate.example}</td>
    </tr>`)}</tbody></table>
    <p class="hint">${t("route.threshold", { threshold: decimal(route.threshold, 2) })}</p></div>`;
}
