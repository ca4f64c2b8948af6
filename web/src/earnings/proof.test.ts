import { expect, it } from "vitest";
import { isIncluded } from "./proof";

// Made by settlement/proof of a manifest with four payouts.
const root = "aYUQaPYU5oKTHBkJmnU7WIYieAApy7OquSTklCZSiN8";
const leaf = (n: number) => `{"payout":"pay_0000000000000000000000000${n + 1}","purpose":"earnings","wallet":"wallet ${n} <é>","token_account":"","amount":"7","records":[],"adjustments":[]}`;
const proofs = [
  { leaf: leaf(0), index: 1, size: 5, path: ["fwIcXs3zZU64tM5N6KeWP8f9dQ7-it5s5QX1_wUELzM", "PC8hMxlUqhvqpgQcd8gVbZUScY-iuTRYMA7xhdzon0c", "lFl6m8XRmIeKdID7l0xipHVlZuXWZ1DixsmZYBm9Cfo"], root },
  { leaf: leaf(1), index: 2, size: 5, path: ["cuctTVWOY6HHSCUhJH6yDXGAE4hdL8ogSTAs9a4MEUE", "U7PkcoYvr7IRzej6CqxrZwgOfsgBZmnwJgX0W9tjptU", "lFl6m8XRmIeKdID7l0xipHVlZuXWZ1DixsmZYBm9Cfo"], root },
  { leaf: leaf(3), index: 4, size: 5, path: ["bnC9i4hC1wCBXXwR3NOMHbbz0aDyc4lFym_fT4ZOP-M"], root },
];

it("proves what the platform's own program has proven", async () => {
  for (const proof of proofs) expect(await isIncluded(proof)).toBe(true);
});

it("proves nothing else", async () => {
  for (const proof of proofs) {
    expect(await isIncluded({ ...proof, leaf: proof.leaf.replace('"7"', '"8"') })).toBe(false);
    expect(await isIncluded({ ...proof, index: proof.index - 1 })).toBe(false);
    expect(await isIncluded({ ...proof, index: proof.size })).toBe(false);
    expect(await isIncluded({ ...proof, path: proof.path.slice(1) })).toBe(false);
    expect(await isIncluded({ ...proof, path: [...proof.path, ...proof.path] })).toBe(false);
    expect(await isIncluded({ ...proof, root: root.replace("a", "b") })).toBe(false);
  }
});
