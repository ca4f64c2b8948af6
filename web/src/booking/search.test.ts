import { describe, expect, it } from "vitest";
import { bookingSearch, specOf } from "./search";

describe("bookingSearch", () => {
  it("keeps what a link of the console contains", () => {
    const search = { model: "H100", regions: ["eu-west"], nodes: 4, gpus: 8, hours: "2h30m", max: "2.5", name: "train" };
    expect(bookingSearch(search)).toEqual(search);
  });

  it("drops what it does not understand", () => {
    expect(bookingSearch({ model: 7, regions: "eu", nodes: 0, gpus: 2.5, hours: "soon", max: "-1", name: "", extra: 1 })).toEqual({});
    expect(bookingSearch({ nodes: 1e9, regions: ["", 3, "eu-west"], max: 2.5 })).toEqual({ regions: ["eu-west"], max: "2.5" });
  });
});

describe("specOf", () => {
  it("asks for nothing before a model is chosen", () => {
    expect(specOf({ nodes: 3 })).toBeNull();
  });
  it("fills in the preset and leaves out what is not restricted", () => {
    expect(specOf({ model: "H100" })).toEqual({ kind: "market", gpu_model: "H100", node_count: 2, gpus_per_node: 1, duration: "1h" });
    expect(specOf({ model: "H100", regions: ["eu-west"], max: "2" })).toMatchObject({ regions: ["eu-west"], max_price_per_gpu_hour: "2" });
  });
});
