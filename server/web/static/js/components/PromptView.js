// "What the model saw", a dialog: the exact prompt of an answer by section, with token counts.
import { useEffect, useState } from "preact/hooks";
import { call } from "../api.js";
import { copyText } from "../clipboard.js";
import { number, percent } from "../format.js";
import { html } from "../html.js";
import { t } from "../i18n.js";
import { Dialog } from "./Dialog.js";
import { ListState } from "./controls.js";

export function PromptDialog({ id }) {
  const [loaded, setLoaded] = useState({ state: "loading" });
  const load = async () => {
    setLoaded({ state: "loading" });
    try {
      setLoaded({ state: "ready", prompt: await call("GET", `/api/messages/${encodeURIComponent(id)}/prompt`) });
    } catch (error) {
      setLoaded({ state: "error", error: error.message });
    }
  };
  useEffect(() => { load(); }, [id]);
  return html`<${Dialog} title=${t("prompt.title")} wide>
    <${ListState} state=${loaded.state} error=${loaded.error} onRetry=${load} lines=${6} />
    ${loaded.prompt && html`<${Prompt} prompt=${loaded.prompt} />`}
  </${Dialog}>`;
}

function Prompt({ prompt }) {
  const { sections, tokens, context_length: contextLength } = prompt;
  // What the chat template adds belongs to no section; it makes the sections add up to the whole.
  const templateTokens = tokens - sections.reduce((sum, section) => sum + section.tokens, 0);
  const rows = sections.filter((section) => section.tokens > 0 || section.text);
  const parts = templateTokens > 0 && !rows.some((row) => row.name === "template")
    ? [...rows, { name: "template", tokens: templateTokens, text: "" }] : rows;
  const fullText = () => prompt.messages.map((message) => `[${message.role}]\n${message.content}`).join("\n\n");
  const copyAll = () => copyText(fullText());
  return html`
    <p class="prompt-sum">
      ${t("prompt.sum", { tokens: number(tokens), room: number(contextLength),
        share: percent(tokens / contextLength) })}
      ${prompt.domain && html` · ${prompt.domain}`}${prompt.adapter && html` · ${prompt.adapter}`}</p>
    <div class="stack" role="img"
      aria-label=${parts.map((part) => `${t(`section.${part.name}`)} ${number(part.tokens)}`).join(", ")}>
      ${parts.filter((part) => part.tokens > 0).map((part) => html`<span key=${part.name}
        class=${`part in-${part.name}`} style=${{ flexGrow: part.tokens }}
        title=${`${t(`section.${part.name}`)}: ${number(part.tokens)}`}></span>`)}
    </div>
    <table class="parts"><thead><tr><th>${t("prompt.section")}</th><th class="num">${t("prompt.tokens")}</th><th
      class="num">${t("prompt.share")}</th></tr></thead>
      <tbody>${parts.map((part) => html`<tr key=${part.name}><td><i
        class=${`dot in-${part.name}`}></i>${t(`section.${part.name}`)}</td>
        <td class="num">${number(part.tokens)}</td>
          <td class="num">${percent(part.tokens / Math.max(tokens, 1))}</td></tr>`)}</tbody></table>
    ${rows.filter((part) => part.text).map((part) => html`<details key=${part.name} class="section"
      open=${part.name === "system" || part.name === "question"}>
      <summary><i class=${`dot in-${part.name}`}></i>${t(`section.${part.name}`)}<span>${number(part.tokens)}</span>
        </summary>
      <pre tabindex="0">${part.text}</pre></details>`)}
    <div class="dialog-actions"><button type="button" class="button"
      onClick=${copyAll}>${t("prompt.copy")}</button></div>`;
}
