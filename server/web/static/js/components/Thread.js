// The open chat: header, messages, what is being sent, and scrolling along while text streams.
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { newChat, retryOutgoing, returnToComposer } from "../actions.js";
import { html } from "../html.js";
import { t } from "../i18n.js";
import { Icon } from "../icons.js";
import { targetMessage } from "../router.js";
import { drawerOpen, isNarrow, panel, toast } from "../state.js";
import { outgoing } from "../thread.js";
import { currentThread, loadThread } from "../threads.js";
import { Banner } from "./Banner.js";
import { Composer } from "./Composer.js";
import { IconButton, ListState } from "./controls.js";
import { Failure } from "./Failure.js";
import { Answer, Question } from "./Message.js";
import { TemporaryMark } from "./Temporary.js";
import { Welcome } from "./Welcome.js";

const END_THRESHOLD_PX = 60; // pixels from the end that count as "at the end"

export function ThreadView() {
  const thread = currentThread.value;
  const covered = isNarrow.value && (drawerOpen.value || panel.value !== null);
  return html`<main class="main" inert=${covered} aria-label=${t("thread.label")}>
    <${Header} thread=${thread} />
    <${Banner} />
    <${Scroller} thread=${thread} />
  </main>`;
}

function Header({ thread }) {
  return html`<header class="header">
    ${isNarrow.value && html`<${IconButton} icon="menu" label=${t("nav.open")}
      onClick=${() => (drawerOpen.value = true)} />`}
    <h1 title=${thread?.title.value}>${thread ? thread.title.value || t("thread.new") : t("thread.new")}</h1>
    <${TemporaryMark} thread=${thread} />
    ${isNarrow.value && html`<${IconButton} icon="plus" label=${t("nav.new")} onClick=${newChat} />`}
  </header>`;
}

function Scroller({ thread }) {
  const scroller = useRef(null);
  const content = useRef(null);
  const following = useRef(true);
  const lastTop = useRef(0);
  const isEmpty = useRef(false);
  const [scrolledAway, setScrolledAway] = useState(false);

  const scrollToEnd = () => {
    following.current = true;
    setScrolledAway(false);
    scroller.current.scrollTop = scroller.current.scrollHeight;
  };
  useLayoutEffect(() => {
    const observer = new ResizeObserver(() => {
      if (following.current && !isEmpty.current) scroller.current.scrollTop = scroller.current.scrollHeight;
    });
    observer.observe(content.current);
    observer.observe(scroller.current);
    return () => observer.disconnect();
  }, []);
  const target = targetMessage.value?.id === thread?.id ? targetMessage.value : null;
  useLayoutEffect(() => {
    if (isEmpty.current) scroller.current.scrollTop = 0;
    else if (!target) scrollToEnd();
  }, [thread]);
  const ready = thread?.state.value === "ready";
  useEffect(() => {
    if (!target || !ready) return;
    if (!thread.messageSignals.has(target.message)) {
      toast(t("search.gone"), { kind: "error" });
      return;
    }
    following.current = false;
    thread.showBranchOf(target.message);
    // drawn with the branch that holds it
    requestAnimationFrame(() => requestAnimationFrame(() => scrollToMessage(scroller.current, target.message)));
  }, [target, ready]);
  const onScroll = () => {
    const { scrollTop, scrollHeight, clientHeight } = scroller.current;
    const atEnd = scrollHeight - scrollTop - clientHeight < END_THRESHOLD_PX;
    // Only the reader moves up; text that grows below never does. So only moving up ends following.
    if (atEnd) following.current = true;
    else if (scrollTop < lastTop.current - 1) following.current = false;
    lastTop.current = scrollTop;
    setScrolledAway(!atEnd && !following.current);
  };

  const pending = outgoing.value.filter((item) => item.thread === thread);
  useEffect(() => {
    if (pending.length) scrollToEnd(); // what the user has just sent is always shown
  }, [pending.length]);

  const state = thread?.state.value ?? "ready";
  isEmpty.current = state === "ready" && !pending.length && (!thread || thread.nodes.value.length === 0);
  return html`
    <div class="scroller" ref=${scroller} onScroll=${onScroll} tabindex="-1">
      <div class="column" ref=${content}>
        ${isEmpty.current && html`<${Welcome} />`}
        <${ListState} state=${state} error=${thread?.error.value} onRetry=${() => loadThread(thread)} lines=${5} />
        ${thread && state === "ready" && html`<${Messages} thread=${thread} />`}
        ${pending.map((item) => html`<${OutgoingMessage} key=${item.request_id} item=${item} />`)}
      </div>
    </div>
    <div class="dock">
      ${scrolledAway && html`<button type="button" class="jump" onClick=${scrollToEnd}><${Icon} name="down"
        size=${16} />${t("thread.jump")}</button>`}
      <${Composer} thread=${thread} onSend=${scrollToEnd} />
    </div>`;
}

/** Brings a message to the middle, marks it for a while, and puts the focus there. */
function scrollToMessage(scroller, id) {
  const element = scroller?.querySelector(`[data-message="${CSS.escape(id)}"]`);
  if (!element) return;
  const { top, height } = element.getBoundingClientRect();
  const margin = Math.max(16, (scroller.clientHeight - height) / 2);
  scroller.scrollTop += top - scroller.getBoundingClientRect().top - margin;
  element.focus({ preventScroll: true });
  element.classList.remove("pointed");
  void element.offsetWidth; // so that pointing at it again marks it again
  element.classList.add("pointed");
}

function Messages({ thread }) {
  const roles = thread.roles.value;
  return thread.shownIds.value.map((id) => {
    const MessageView = roles.get(id) === "user" ? Question : Answer;
    return html`<${MessageView} key=${id} thread=${thread} messageSignal=${thread.messageSignals.get(id)} />`;
  });
}

/** Sent and not confirmed, or refused. */
function OutgoingMessage({ item }) {
  return html`
    ${item.text && html`<article class="question pending"><div class="bubble">${item.text}</div></article>`}
    ${item.error
      ? html`<${Failure} error=${item.error} onRetry=${() => retryOutgoing(item)}>
          ${item.text && html`<button type="button" class="button small quiet"
            onClick=${() => returnToComposer(item)}>${t("thread.take_back")}</button>`}
        </${Failure}>`
      : html`<p class="phase"><span class="dots" aria-hidden="true"></span>${t("phase.sending")}</p>`}`;
}
