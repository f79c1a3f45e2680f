// Accounts, groups and the audit log, for administrators.
import { useEffect, useState } from "preact/hooks";
import { html } from "../html.js";
import { t } from "../i18n.js";
import { Icon } from "../icons.js";
import { addGroup, addUser, loadPeople, people, removeGroup, removeUser } from "../people.js";
import { resetPassword, setMembers, setRoles } from "../people.js";
import { dialog, session } from "../state.js";
import { AuditLog } from "./AuditLog.js";
import { IconButton, ListState, Segmented } from "./controls.js";
import { Dialog } from "./Dialog.js";

const TABS = ["users", "groups", "log"];

export function PeoplePanel() {
  const [tab, setTab] = useState("users");
  useEffect(() => { loadPeople(); }, []);
  const { state, error } = people.value;
  return html`
    <${Segmented} label=${t("people.tabs")} value=${tab} onChange=${setTab}
      options=${TABS.map((value) => ({ value, label: t(`people.${value}`) }))} />
    ${tab === "log"
      ? html`<${AuditLog} />`
      : html`<${ListState} state=${state} error=${error} onRetry=${loadPeople} />
          ${state === "ready" && (tab === "users" ? html`<${Users} />` : html`<${Groups} />`)}`}`;
}

function Users() {
  const { users } = people.value;
  return html`
    <button type="button" class="button" onClick=${() => (dialog.value = { kind: "add-user" })}>
      <${Icon} name="plus" size=${16} />${t("people.add")}</button>
    <ul class="people">${users.map((user) => html`<${UserRow} key=${user.name} user=${user} />`)}</ul>`;
}

function UserRow({ user }) {
  const isSelf = user.name === session.value.user.name;
  const remove = () => (dialog.value = {
    kind: "confirm", title: t("people.remove_title", { name: user.name }), text: t("people.remove_text"),
    action: t("people.remove"), danger: true, onConfirm: () => removeUser(user.name),
  });
  return html`<li class="person">
    <div class="person-head"><${Icon} name="user" size=${16} /><strong>${user.name}</strong>
      ${isSelf && html`<span class="state loaded">${t("people.you")}</span>`}
      <span class="grow"></span>
      <${IconButton} icon="edit" size=${16} label=${t("people.edit", { name: user.name })}
        onClick=${() => (dialog.value = { kind: "edit-user", name: user.name })} />
      ${!isSelf && html`<${IconButton} icon="trash" size=${16} label=${t("people.remove_this", { name: user.name })}
        onClick=${remove} />`}</div>
    <p class="tags">${user.roles.filter((role) => role !== "user").map((role) => html`<span key=${role} class="tag">${t(`rights.${role}`)}</span>`)}
      ${user.groups.map((group) => html`<span key=${group} class="tag">@${group}</span>`)}</p>
  </li>`;
}

function RoleBoxes({ chosen, onChange }) {
  const roles = Object.keys(people.value.roles).filter((role) => role !== "user");
  const toggle = (role) => onChange(chosen.includes(role) ? chosen.filter((one) => one !== role) : [...chosen, role]);
  return html`<fieldset class="choices"><legend>${t("people.roles")}</legend>
    ${roles.map((role) => html`<label key=${role} class="check"><input type="checkbox" checked=${chosen.includes(role)}
      onChange=${() => toggle(role)} /><span>${t(`rights.${role}`)} <small>${t(`rights.${role}_text`)}</small></span></label>`)}
  </fieldset>`;
}

/** A new account. */
export function AddUserDialog() {
  const [roles, setChosen] = useState([]);
  const [busy, setBusy] = useState(false);
  const submit = async (event) => {
    event.preventDefault();
    const { name, password } = event.target.elements;
    setBusy(true);
    if (await addUser(name.value.trim(), password.value, roles)) dialog.value = null;
    else setBusy(false);
  };
  return html`<${Dialog} title=${t("people.add")}>
    <form class="password-form" onSubmit=${submit}>
      <label>${t("login.name")}<input class="field" name="name" required maxlength="64" autocapitalize="none"
        pattern="[A-Za-z0-9._\\-]+" spellcheck=${false} autocomplete="off" data-autofocus /></label>
      <label>${t("people.first_password")}<input class="field" name="password" type="password" required minlength="8"
        maxlength="1024" autocomplete="new-password" /></label>
      <${RoleBoxes} chosen=${roles} onChange=${setChosen} />
      <div class="dialog-actions">
        <button type="button" class="button" onClick=${() => (dialog.value = null)}>${t("action.cancel")}</button>
        <button type="submit" class="button primary" disabled=${busy}>${t("people.add")}</button>
      </div>
    </form>
  </${Dialog}>`;
}

/** Roles of an account, and a new password for it. */
export function EditUserDialog({ name }) {
  const user = people.value.users.find((one) => one.name === name);
  const [roles, setChosen] = useState(user?.roles.filter((role) => role !== "user") ?? []);
  const [busy, setBusy] = useState(false);
  const run = async (event, work) => {
    event.preventDefault();
    setBusy(true);
    if (await work()) dialog.value = null;
    else setBusy(false);
  };
  return html`<${Dialog} title=${name}>
    <form class="password-form" onSubmit=${(event) => run(event, () => setRoles(name, roles))}>
      <${RoleBoxes} chosen=${roles} onChange=${setChosen} />
      <div class="dialog-actions"><button type="submit" class="button primary"
        disabled=${busy}>${t("people.save_roles")}</button></div>
    </form>
    <form class="password-form" onSubmit=${(event) => (
      run(event, () => resetPassword(name, event.target.elements.password.value)))}>
      <label>${t("people.new_password")}<input class="field" name="password" type="password" required minlength="8"
        maxlength="1024" autocomplete="new-password" /></label>
      <p class="hint">${t("people.reset_text")}</p>
      <div class="dialog-actions"><button type="submit" class="button"
        disabled=${busy}>${t("people.reset")}</button></div>
    </form>
  </${Dialog}>`;
}

function Groups() {
  const { groups } = people.value;
  const [name, setName] = useState("");
  const submit = async (event) => {
    event.preventDefault();
    if (name.trim() && await addGroup(name.trim())) setName("");
  };
  return html`
    <p class="hint">${t("people.groups_text")}</p>
    <form class="one-line" onSubmit=${submit}>
      <input class="field" value=${name} maxlength="64" placeholder=${t("people.group_name")}
        aria-label=${t("people.group_name")} autocapitalize="none" onInput=${(event) => setName(event.target.value)} />
      <button type="submit" class="button" disabled=${!name.trim()}>${t("people.add_group")}</button>
    </form>
    ${groups.length === 0 && html`<p class="empty">${t("people.no_groups")}</p>`}
    <ul class="people">${groups.map((group) => html`<${GroupRow} key=${group.name} group=${group} />`)}</ul>`;
}

function GroupRow({ group }) {
  const others = people.value.users.map((user) => user.name).filter((name) => !group.members.includes(name));
  const remove = () => (dialog.value = {
    kind: "confirm", title: t("people.remove_group_title", { name: group.name }), text: t("people.remove_group_text"),
    action: t("people.remove_group"), danger: true, onConfirm: () => removeGroup(group.name),
  });
  return html`<li class="person">
    <div class="person-head"><${Icon} name="people" size=${16} /><strong>@${group.name}</strong>
      <span class="grow"></span>
      <${IconButton} icon="trash" size=${16} label=${t("people.remove_this", { name: `@${group.name}` })}
        onClick=${remove} /></div>
    <ul class="tags">${group.members.map((member) => html`<li key=${member} class="tag member">${member}
      <${IconButton} icon="close" size=${12} label=${t("people.take_out", { name: member, group: group.name })}
        onClick=${() => setMembers(group.name, group.members.filter((one) => one !== member))} /></li>`)}</ul>
    ${others.length > 0 && html`<select class="field" aria-label=${t("people.put_in", { group: group.name })} value=""
      onChange=${(event) => event.target.value && setMembers(group.name, [...group.members, event.target.value])}>
      <option value="">${t("people.put_in", { group: group.name })}</option>
      ${others.map((name) => html`<option key=${name} value=${name}>${name}</option>`)}</select>`}
  </li>`;
}
