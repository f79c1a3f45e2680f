// The template tag of all components.
import htm from "htm";
import { h } from "preact";

export const html = htm.bind(h);

/** Class names without the falsy ones. */
export const cx = (...names) => names.filter(Boolean).join(" ");
