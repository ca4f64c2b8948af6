import { describe, expect, it } from "vitest";
import { SseParser } from "./sse";
import { INITIAL, isNews, parseSignal, reduce, STALE_AFTER_MS, type ClusterSignal } from "./state";

describe("SseParser", () => {
  it("reads events cut at any place", () => {
    const wire = ": hello\r\nid: 7\r\nevent: cluster\r\ndata: {\"a\":1,\r\ndata: \"b\":2}\r\n\r\nid: 8\ndata: x\n\n";
    for (let cut = 0; cut <= wire.length; cut++) {
      const parser = new SseParser();
      const events = [...parser.push(wire.slice(0, cut)), ...parser.push(wire.slice(cut))];
      expect(events).toEqual([
        { id: "7", type: "cluster", data: '{"a":1,\n"b":2}' },
        { id: "8", type: "message", data: "x" },
      ]);
    }
  });

  it("drops comments and events without data, and keeps the id", () => {
    const parser = new SseParser();
    expect(parser.push("id: 3\nevent: cluster\n\n: ping\n\n")).toEqual([]);
    expect(parser.push("data\n\n")).toEqual([{ id: "3", type: "message", data: "" }]);
  });

  it("refuses an endless line", () => {
    expect(() => new SseParser().push("x".repeat(1_000_001))).toThrow(RangeError);
  });
});

describe("live state", () => {
  const signal = (version: number): ClusterSignal => ({ id: "cl_1", version, seq: version, message: "" });

  it("goes live, reconnecting, stale and live again", () => {
    let state = reduce(INITIAL, { kind: "opened" });
    expect(state.link.kind).toBe("live");
    state = reduce(state, { kind: "lost", at: 1_000 });
    state = reduce(state, { kind: "lost", at: 9_000 });
    expect(state.link).toEqual({ kind: "reconnecting", since: 1_000 });
    expect(reduce(state, { kind: "waited", at: 1_000 + STALE_AFTER_MS - 1 }).link.kind).toBe("reconnecting");
    state = reduce(state, { kind: "waited", at: 1_000 + STALE_AFTER_MS });
    expect(state.link).toEqual({ kind: "stale", since: 1_000 });
    expect(reduce(state, { kind: "opened" }).link.kind).toBe("live");
  });

  it("takes each version once and remembers where it was", () => {
    const state = reduce(INITIAL, { kind: "signal", eventId: "41", signal: signal(5) });
    expect(state.lastEventId).toBe("41");
    expect(isNews(state, signal(5))).toBe(false);
    expect(isNews(state, signal(4))).toBe(false);
    expect(isNews(state, signal(6))).toBe(true);
    const late = reduce(state, { kind: "signal", eventId: "42", signal: signal(4) });
    expect(late.lastEventId).toBe("42");
    expect(late.seen.get("cl_1")).toEqual({ version: 5, seq: 5 });
    expect(isNews(state, { ...signal(5), seq: 6 })).toBe(true);
  });

  it("ignores what it does not understand", () => {
    expect(parseSignal("weather", "{}")).toBeNull();
    expect(parseSignal("cluster", "{")).toBeNull();
    expect(parseSignal("cluster", '{"id":7}')).toBeNull();
    expect(parseSignal("cluster", '{"id":"cl_1","version":3,"seq":9,"message":"ready"}')).toEqual({ id: "cl_1", version: 3, seq: 9, message: "ready" });
  });
});
