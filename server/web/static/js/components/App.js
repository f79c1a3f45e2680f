// The page: sidebar, chat, one panel, one dialog, messages to the user.
import { html } from "../html.js";
import { t } from "../i18n.js";
import { Icon } from "../icons.js";
import { bootError, dialog, drawer, narrow, panel, session } from "../state.js";
import { Sidebar } from "./ChatList.js";
import { ChatsDialog } from "./ChatSearch.js";
import { DeleteChatDialog } from "./DeleteChat.js";
import { ConfirmDialog } from "./Dialog.js";
import { Login } from "./Login.js";
import { ConflictDialog, MemoriesDialog } from "./MemoryDialogs.js";
import { PanelView } from "./Panel.js";
import { PromptDialog } from "./PromptView.js";
import { SettingsDialog } from "./Settings.js";
import { SourceDialog } from "./SourceDialog.js";
import { ThreadView } from "./Thread.js";
import { Toasts } from "./Toast.js";
import { TraceDialog } from "./Trace.js";
import { TrialDialog } from "./TrySearch.js";

const DIALOGS = {
  chats: ChatsDialog,
  confirm: ConfirmDialog,
  conflict: ConflictDialog,
  "delete-chat": DeleteChatDialog,
  memories: MemoriesDialog,
  prompt: PromptDialog,
  settings: SettingsDialog,
  source: SourceDialog,
  trace: TraceDialog,
  trial: TrialDialog,
};

export function App({ onLogin, onRetry }) {
  const held = session.value;
  if (!held) return html`<${Starting} onRetry=${onRetry} />`;
  if (held.login_needed && !held.user) return html`<${Login} onDone=${onLogin} /><${Toasts} />`;
  const Open = dialog.value && DIALOGS[dialog.value.kind];
  return html`
    <a class="skip" href="#composer" onClick=${skip}>${t("nav.skip")}</a>
    <div class=${panel.value ? "app with-panel" : "app"}>
      <${Sidebar} />
      ${drawer.value && narrow.value && html`<div class="shade" onClick=${() => (drawer.value = false)}></div>`}
      <${ThreadView} />
      <${PanelView} />
    </div>
    ${Open && html`<${Open} key=${dialog.value.kind} ...${dialog.value} />`}
    <${Toasts} />`;
}

function skip(event) {
  event.preventDefault();
  document.querySelector(".composer textarea")?.focus();
}

function Starting({ onRetry }) {
  return html`<main class="starting">${bootError.value
    ? html`<div class="notice error" role="alert"><${Icon} name="alert" /><span>${bootError.value}</span>
        <button type="button" class="button small" onClick=${onRetry}>${t("action.retry")}</button></div>`
    : html`<p class="phase" role="status"><span class="dots"
      aria-hidden="true"></span>${t("state.loading")}</p>`}</main>`;
}
