import { expect, it } from "vitest";
import { plainLogs } from "./logs";

it("drops colours, titles and cursor moves, and nothing else", () => {
  expect(plainLogs("at \u001b[1m\u001b[32mhttp://127.0.0.1\u001b[39m\u001b[22m\nok")).toBe("at http://127.0.0.1\nok");
  expect(plainLogs("\u001b]0;title\u0007\u001b[2Kx [1m] y")).toBe("x [1m] y");
});
