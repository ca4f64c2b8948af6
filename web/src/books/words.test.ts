import { expect, it } from "vitest";
import { actionWords, detailPairs, monthWords } from "./words";

it("says an action in words, and one that it does not know as it is", () => {
  expect(actionWords("period.close")).toBe("Closed a month");
  expect(actionWords("moon.land")).toBe("moon.land");
});

it("takes an event's details apart, whatever they are", () => {
  expect(detailPairs('{"org_id":"org_1","note":"","n":2,"changes":["taken on","note"]}')).toEqual([
    ["org id", "org_1"],
    ["n", "2"],
    ["changes", "taken on, note"],
  ]);
  expect(detailPairs("null")).toEqual([]);
  expect(detailPairs("")).toEqual([]);
  expect(detailPairs("{broken")).toEqual([["details", "{broken"]]);
});

it("says a month in words, in UTC", () => {
  expect(monthWords("2026-10")).toBe("October 2026");
});
