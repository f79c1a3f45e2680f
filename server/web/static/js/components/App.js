// The page: sidebar, chat, one panel, one dialog, messages to the user.
import { html } from "../html.js";
import { t } from "../i18n.js";
import { Icon } from "../icons.js";
import { bootError, dialog, drawerOpen, isNarrow, panel, session } from "../state.js";
import { EraseAccountDialog } from "./AccountPanel.js";
import { Sidebar } from "./Sidebar.js";
import { QuotedTurnsDialog } from "./ChatSearch.js";
import { DeleteChatDialog } from "./DeleteChat.js";
import { ConfirmDialog } from "./Dialog.js";
import { Login } from "./Login.js";
import { ConflictDialog, UsedMemoriesDialog } from "./MemoryDialogs.js";
import { PanelView } from "./Panel.js";
import { AddUserDialog, EditUserDialog } from "./PeoplePanel.js";
import { PromptDialog } from "./PromptView.js";
import { SettingsDialog } from "./Settings.js";
import { SourceDialog } from "./SourceDialog.js";
import { ThreadView } from "./Thread.js";
import { Toasts } from "./Toast.js";
import { TraceDialog } from "./Trace.js";
import { TrySearchDialog } from "./TrySearch.js";

const DIALOGS = {
  "add-user": AddUserDialog,
  "edit-user": EditUserDialog,
  "erase-account": EraseAccountDialog,
  "quoted-turns": QuotedTurnsDialog,
  confirm: ConfirmDialog,
  conflict: ConflictDialog,
  "delete-chat": DeleteChatDialog,
  "used-memories": UsedMemoriesDialog,
  prompt: PromptDialog,
  settings: SettingsDialog,
  source: SourceDialog,
  trace: TraceDialog,
  "try-search": TrySearchDialog,
};

export function App({ onLogin, onRetry }) {
  const currentSession = session.value;
  if (!currentSession) return html`<${Starting} onRetry=${onRetry} />`;
  if (currentSession.login_needed && !currentSession.user) return html`<${Login} onDone=${onLogin} /><${Toasts} />`;
  const OpenDialog = dialog.value && DIALOGS[dialog.value.kind];
  return html`
    <a class="skip" href="#composer" onClick=${focusComposer}>${t("nav.skip")}</a>
    <div class=${panel.value ? "app with-panel" : "app"}>
      <${Sidebar} />
      ${drawerOpen.value && isNarrow.value && html`<div class="shade"
        onClick=${() => (drawerOpen.value = false)}></div>`}
      <${ThreadView} />
      <${PanelView} />
    </div>
    ${OpenDialog && html`<${OpenDialog} key=${dialog.value.kind} ...${dialog.value} />`}
    <${Toasts} />`;
}

function focusComposer(event) {
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
