// One chat in this page: its message tree as signals, and the outgoing messages that await confirmation.
import { computed, signal } from "@preact/signals";
import { branch, choicesFor } from "./tree.js";
import { EVENT_ONLY_FIELDS, fromStored } from "./turn.js";

/** Sent, and not yet confirmed by `started`: {request_id, frame, thread, text, error: {code, message}, knownIds}. */
export const outgoing = signal([]);
/** Answer id → Thread, for answers whose events are still expected. */
export const threadOfAnswer = new Map();

export class Thread {
  constructor(id, title = "", domain = null, temporary = false) {
    this.id = id;
    this.state = signal("loading"); // loading, ready, error
    this.error = signal("");
    this.title = signal(title);
    this.domain = signal(domain);
    this.temporary = signal(Boolean(temporary)); // nothing of it is remembered, and nothing remembered is used
    this.nodes = signal([]);        // {id, parent_id, role}, oldest first
    this.choices = signal({});
    this.messageSignals = new Map(); // id → signal of the message
    this.revision = 0;              // of the version shown
    this.ownChange = false;         // the next change of the list is this page's own doing
    this.shownIds = computed(() => branch(this.nodes.value, this.choices.value));
    this.roles = computed(() => new Map(this.nodes.value.map((node) => [node.id, node.role])));
    /** The id of the answer that is being written on the shown branch, or null. */
    this.streamingId = computed(() => {
      const last = this.messageSignals.get(this.shownIds.value.at(-1))?.value;
      return last?.status === "streaming" ? last.id : null;
    });
    /** Nothing new can be asked meanwhile. Computed, so that its readers are not drawn at each token. */
    this.busy = computed(
      () => this.streamingId.value !== null || outgoing.value.some((item) => item.thread === this && !item.error),
    );
  }

  upsert(message) {
    const messageSignal = this.messageSignals.get(message.id);
    if (messageSignal) {
      messageSignal.value = message;
      return;
    }
    this.messageSignals.set(message.id, signal(message));
    this.nodes.value = [...this.nodes.value, { id: message.id, parent_id: message.parent_id, role: message.role }];
  }

  /** Merges a stored message; fields that only events carry stay. */
  mergeStored(stored) {
    const message = fromStored(stored);
    const existing = this.messageSignals.get(message.id)?.value;
    const eventOnly = existing && Object.fromEntries(EVENT_ONLY_FIELDS.map((name) => [name, existing[name]]));
    if (existing?.memories_saved.length) eventOnly.memories_saved = existing.memories_saved; // an undone one says so
    this.upsert(existing ? { ...message, ...eventOnly } : message);
  }

  showBranchOf(id) {
    this.choices.value = choicesFor(this.nodes.value, this.choices.value, id);
  }

  /** Whether events of its answers are still expected. */
  hasLiveAnswers() {
    return this.busy.value || [...threadOfAnswer.values()].includes(this);
  }
}
