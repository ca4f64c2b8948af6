/**
 * Ends the process with a sentence that helps when the packages are not installed.
 */

import fs from "node:fs";
import process from "node:process";

if (!fs.existsSync(new URL("../node_modules/litesvm", import.meta.url))) {
  process.stderr.write("localnet: deploy/localnet/node_modules is missing: run `make setup`\n");
  process.exit(1);
}
