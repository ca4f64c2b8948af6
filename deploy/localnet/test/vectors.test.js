/** The known answers that settlement/txn is tested with are still what kit makes. */

import assert from "node:assert/strict";
import fs from "node:fs";
import { test } from "node:test";
import { VECTORS, makeVectors } from "./vectors.js";

test("the stored messages are those of this kit: run `node test/vectors.js` to write them anew", () => {
  const { text, vectors } = makeVectors();
  assert.equal(vectors, 12);
  assert.equal(fs.readFileSync(VECTORS, "utf8"), text);
});
