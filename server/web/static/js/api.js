// HTTP calls. Every failure becomes an ApiError whose message can be shown as it stands.
import { t } from "./i18n.js";

export class ApiError extends Error {
  constructor(status, code, message, retryAfter = 0) {
    super(message);
    this.status = status; // 0: the server was not reached
    this.code = code;
    this.retry_after = retryAfter; // seconds; 0: unknown
  }
}

let unauthorizedHandler = () => {};

/** Called whenever the server says that there is no session. */
export function setUnauthorizedHandler(callback) {
  unauthorizedHandler = callback;
}

/** `await call("GET", "/api/…")`; a body is sent as JSON. Gives the parsed answer, null for 204. */
export async function call(method, path, body) {
  let response;
  try {
    response = await fetch(path, {
      method,
      credentials: "same-origin",
      cache: "no-store",
      headers: body === undefined ? {} : { "Content-Type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch {
    throw new ApiError(0, "unreachable", t("error.unreachable"));
  }
  if (response.status === 204) return null;
  const text = await response.text().catch(() => "");
  const retryAfter = Number(response.headers.get("retry-after")) || 0;
  return parseResponse(response.status, text, path !== "/api/login", retryAfter);
}

/** Sends one file with progress: `onProgress(fraction)` with fraction from 0 to 1. */
export function upload(path, file, onProgress) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    const form = new FormData();
    form.append("files", file, file.name);
    request.open("POST", path);
    request.upload.addEventListener("progress", (event) => {
      if (event.lengthComputable) onProgress(event.loaded / event.total);
    });
    request.addEventListener("load", () => {
      try {
        resolve(parseResponse(request.status, request.responseText, true));
      } catch (error) {
        reject(error);
      }
    });
    request.addEventListener("error", () => reject(new ApiError(0, "unreachable", t("error.unreachable"))));
    request.send(form);
  });
}

function parseResponse(status, text, needsSession, retryAfter = 0) {
  let parsed = null;
  try {
    parsed = JSON.parse(text);
  } catch {
    // a proxy's page instead of our JSON; the status still says what happened
  }
  if (status >= 200 && status < 300 && parsed !== null) return parsed;
  if (status === 401 && needsSession) unauthorizedHandler();
  const error = parsed?.error ?? {};
  throw new ApiError(status, error.code ?? "http", error.message ?? t("error.status", { status }), retryAfter);
}
