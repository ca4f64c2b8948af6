import { afterEach, describe, expect, it, vi } from "vitest";
import { learnServerTime, serverNow } from "./clock";
import { durationMs, durationWords, formatClock, formatDuration, formatInstant, utcText } from "./time";

describe("instants", () => {
  const iso = "2026-11-22T13:03:05.123Z";

  it("names the zone", () => {
    expect(formatInstant(iso, { locale: "en-GB", zone: "Europe/Berlin" })).toBe("22 Nov 2026, 14:03:05 CET");
    expect(formatClock(iso, { locale: "en-GB", utc: true })).toBe("13:03:05 UTC");
  });

  it("has a UTC text", () => {
    expect(utcText(iso)).toBe("2026-11-22 13:03:05 UTC");
  });
});

describe("formatDuration", () => {
  it.each([
    [-5, "0 s"],
    [4_290, "4.2 s"],
    [59_999, "59 s"],
    [60_000, "1 min"],
    [125_000, "2 min 5 s"],
    [23_400_000, "6 h 30 min"],
    [273_600_000, "3 d 4 h"],
  ])("writes %s ms as %s", (ms, text) => {
    expect(formatDuration(ms)).toBe(text);
  });
});

describe("the API's durations", () => {
  it.each([
    ["1h", 3_600_000],
    ["2h30m", 9_000_000],
    ["90s", 90_000],
    ["", null],
    ["soon", null],
  ])("reads %j", (text, ms) => {
    expect(durationMs(text)).toBe(ms);
  });
  it("puts them into words", () => {
    expect(durationWords("2h30m")).toBe("2 h 30 min");
  });
});

describe("the server's clock", () => {
  afterEach(() => {
    vi.useRealTimers();
    learnServerTime(new Date().toUTCString(), Date.now(), Date.now());
  });

  it("corrects a viewer's clock that is off, and leaves a good one alone", () => {
    vi.useFakeTimers({ now: Date.parse("2026-11-22T12:00:00Z") });
    learnServerTime("Sun, 22 Nov 2026 12:10:00 GMT", Date.now() - 100, Date.now() + 100);
    expect(serverNow()).toBe(Date.parse("2026-11-22T12:10:00Z"));
    learnServerTime("Sun, 22 Nov 2026 12:00:01 GMT", Date.now(), Date.now());
    expect(serverNow()).toBe(Date.now());
    learnServerTime("nonsense", Date.now(), Date.now());
    expect(serverNow()).toBe(Date.now());
  });
});
