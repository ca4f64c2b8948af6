import { describe, expect, it } from "vitest";
import { surveyFindings } from "./words";

describe("what a survey found", () => {
  it.each([
    [{ settlement: 1, foreign: 0 }, "Accounts that hold something: 1 of the platform's token"],
    [{ settlement: 0, foreign: 12_000 }, "Accounts that hold something: 12,000 of other tokens"],
    [{ settlement: 2, foreign: 3 }, "Accounts that hold something: 2 of the platform's token, 3 of other tokens"],
  ])("of %o reads %s", (survey, words) => {
    expect(surveyFindings(survey)).toBe(words);
  });
});
