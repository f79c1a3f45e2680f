// Copies text, and says so when the browser does not allow it.
import { t } from "./i18n.js";
import { toast } from "./state.js";

/** True when it was copied. */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    toast(t("error.clipboard"), { kind: "error" });
    return false;
  }
}
