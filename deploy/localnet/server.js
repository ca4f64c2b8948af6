/**
 * A local Solana chain for development. See README.md.
 *
 * The first line on stdout, once it listens, is one JSON object: rpc, ws, genesisHash. Everything
 * else goes to stderr. SIGTERM and SIGINT store what is left and exit 0.
 */

import "./lib/setup.js";

// Not a static import: the message about missing packages has to come first.
await import("./lib/main.js");
