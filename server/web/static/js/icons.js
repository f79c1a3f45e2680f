// Line icons, drawn on a 20×20 grid. Decorative: the control that holds one carries the name.
import { html } from "./html.js";

const PATHS = {
  plus: "M10 4v12M4 10h12",
  menu: "M3 6h14M3 10h14M3 14h14",
  close: "m5 5 10 10M15 5 5 15",
  more: "M4.5 10h.01M10 10h.01M15.5 10h.01",
  send: "M10 16V4M5 9l5-5 5 5",
  stop: "M6 6h8v8H6z",
  copy: "M7.5 7.5h8v8h-8zM12.5 7.5v-3h-8v8h3",
  check: "m4.5 10.5 3.5 3.5 7.5-8",
  redo: "M15.5 10a5.5 5.5 0 1 1-1.8-4.1M15.5 3.5v3.2h-3.2",
  edit: "M4 16l.8-3.3L13.3 4.2a1.2 1.2 0 0 1 1.7 0l.8.8a1.2 1.2 0 0 1 0 1.7L7.3 15.2z",
  left: "m12 5-5 5 5 5",
  right: "m8 5 5 5-5 5",
  down: "m5 8 5 5 5-5",
  eye: "M2.5 10S5 5 10 5s7.5 5 7.5 5-2.5 5-7.5 5-7.5-5-7.5-5zM10 8a2 2 0 1 1 0 4 2 2 0 0 1 0-4",
  book: "M10 5.5C8.5 4.3 6.3 4 3.5 4v11c2.8 0 5 .3 6.5 1.5 1.5-1.2 3.7-1.5 6.5-1.5V4c-2.8 0-5 .3-6.5 1.5zM10 5.5v11",
  memory: "M10 16.5s-6-3.3-6-8A3.3 3.3 0 0 1 10 6.7a3.3 3.3 0 0 1 6 1.8c0 4.7-6 8-6 8z",
  layers: "m10 3.5 7 3.5-7 3.5L3 7zM3 10.3l7 3.5 7-3.5M3 13.5l7 3.5 7-3.5",
  route: "M5 15.5a1.5 1.5 0 1 0 0-3 1.5 1.5 0 0 0 0 3z" +
    "M15 7.5a1.5 1.5 0 1 0 0-3 1.5 1.5 0 0 0 0 3zM6.5 14H11a2.5 2.5 0 0 0 0-5H9a1.5 1.5 0 0 1 0-3h4.5",
  gear: "M3 6h8M15 6h2M3 14h2M9 14h8M13 4v4M7 12v4",
  file: "M5.5 3h6l3.5 3.5V17h-9.5zM11.5 3v3.5H15",
  upload: "M10 13V4M6.5 7.5 10 4l3.5 3.5M4 13v3h12v-3",
  trash: "M4 6h12M8 6V4h4v2M5.5 6l.8 10.5h7.4L14.5 6",
  alert: "M10 4 2.8 16.5h14.4zM10 9v3.5M10 14.5h.01",
  user: "M10 10.5a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7zM3.5 17a6.5 6.5 0 0 1 13 0",
  people: "M7.5 9.5a3 3 0 1 0 0-6 3 3 0 0 0 0 6zM2 16.5a5.5 5.5 0 0 1 11 0M13 4a3 3 0 0 1 0 5.5M14.5 11.5a5.5 5.5 0 0 1 3.5 5",
  key: "M6.5 13a3 3 0 1 0 0-6 3 3 0 0 0 0 6zM9.5 10H17v3M13.5 10v2.5",
  lock: "M5.5 9h9v7.5h-9zM7 9V6.5a3 3 0 0 1 6 0V9",
  search: "M9 14.5a5.5 5.5 0 1 0 0-11 5.5 5.5 0 0 0 0 11zM13 13l4 4",
  clock: "M10 17a7 7 0 1 0 0-14 7 7 0 0 0 0 14zM10 6v4l2.8 1.8",
  out: "M8 4H4v12h4M8 10h9M13.5 6.5 17 10l-3.5 3.5",
  undo: "M7 4.5 3.5 8 7 11.5M3.5 8H12a4 4 0 0 1 0 8H8",
  pause: "M7 5v10M13 5v10",
  chat: "M4 5h12v8.5H9.5L6 16.5v-3H4z",
  download: "M10 4v9M6.5 9.5 10 13l3.5-3.5M4 13v3h12v-3",
  temporary: "M10 3a5.5 5.5 0 0 0-5.5 5.5V17l1.9-1.4L8.2 17l1.8-1.4 1.8 1.4 1.8-1.4 1.9 1.4V8.5A5.5 5.5 0 0 0 10 3z" +
    "M8 8.5h.01M12 8.5h.01",
  spark: "M10 3v4M10 13v4M3 10h4M13 10h4",
};

export function Icon({ name, size = 18 }) {
  return html`<svg class="icon" width=${size} height=${size} viewBox="0 0 20 20" aria-hidden="true" focusable="false">
    <path d=${PATHS[name]} />
  </svg>`;
}

/** The product's mark: a needle and its thread. */
export function Logo({ size = 22 }) {
  return html`<svg class="mark" width=${size} height=${size} viewBox="0 0 32 32" aria-hidden="true" focusable="false">
    <rect class="mark-ground" width="32" height="32" rx="8" />
    <path class="mark-needle" d="M23.5 7.5 11 20" />
    <path class="mark-thread" d="M11 20c-3.4 3.4-4.6 1.6-3 .2 2.6-2.3 6.3 4.3 9.4 3.7 3.3-.6 1.9-4.7 4.8-5.4" />
  </svg>`;
}
