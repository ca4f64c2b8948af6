import { expect, it } from "vitest";
import { shares } from "./bars";

const money = (base_units: string) => ({ base_units, text: "", currency: "USDC", decimals: 6 });

it("scales bars to the greatest amount", () => {
  expect(shares([money("0"), money("50"), money("100")])).toEqual([0, 0.5, 1]);
  expect(shares([money("9007199254740993000"), money("18014398509481986000")])).toEqual([0.5, 1]);
});

it("draws nothing where nothing was earned", () => {
  expect(shares([money("0"), money("0")])).toEqual([0, 0]);
  expect(shares([money("-5"), money("10")])).toEqual([0, 1]);
});
