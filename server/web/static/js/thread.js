// One chat in this page: its message tree as signals, and what of it is still on its way.
import { computed, signal } from "@preact/signals";
import { branch, choicesTo } from "./tree.js";
import { fromStored, ONLY_TOLD } from "./turn.js";

/** Sent, and not yet confirmed by `started`: {request_id, frame, thread, text, error: {code, message}, known}. */
export const outgoing = signal([]);
/** Answer id → Thread, while events of that answer may come. */
export const homes = new Map();

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
    this.cells = new Map();         // id → signal of the message
    this.updatedAt = 0;             // of the version shown
    this.own = false;               // the next change of the list is this page's own doing
    this.shown = computed(() => branch(this.nodes.value, this.choices.value));
    this.roles = computed(() => new Map(this.nodes.value.map((node) => [node.id, node.role])));
    /** The id of the answer that is being written on the shown branch, or null. */
    this.running = computed(() => {
      const last = this.cells.get(this.shown.value.at(-1))?.value;
      return last?.status === "streaming" ? last.id : null;
    });
    /** Nothing new can be asked meanwhile. Computed, so that its readers are not drawn at each token. */
    this.busy = computed(
      () => this.running.value !== null || outgoing.value.some((item) => item.thread === this && !item.error),
    );
  }

  put(message) {
    const cell = this.cells.get(message.id);
    if (cell) {
      cell.value = message;
      return;
    }
    this.cells.set(message.id, signal(message));
    this.nodes.value = [...this.nodes.value, { id: message.id, parent_id: message.parent_id, role: message.role }];
  }

  /** Takes a stored message over; what only the events told stays. */
  putStored(stored) {
    const message = fromStored(stored);
    const held = this.cells.get(message.id)?.value;
    const told = held && Object.fromEntries(ONLY_TOLD.map((name) => [name, held[name]]));
    this.put(held ? { ...message, ...told } : message);
  }

  show(id) {
    this.choices.value = choicesTo(this.nodes.value, this.choices.value, id);
  }

  /** Events of its answers may still come. */
  live() {
    return this.busy.value || [...homes.values()].includes(this);
  }
}
