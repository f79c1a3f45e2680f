// A change that the server is asked for: says what came of it, and fetches anew what it has changed.
import { call } from "./api.js";
import { toast } from "./state.js";

/** Whether it succeeded. `done` is said then; `reload` runs either way. */
export async function change(method, path, body, done, reload) {
  let ok = true;
  try {
    await call(method, path, body);
    toast(done);
  } catch (error) {
    ok = false;
    toast(error.message, { kind: "error" });
  }
  await reload();
  return ok;
}
