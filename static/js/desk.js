// The desk in the browser: each module adds to pages that already work without it.
import "./time.js";
import "./select.js";
import "./keys.js";
import "./theme.js";
import "./page.js";
import "./live.js";
