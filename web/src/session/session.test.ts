import { describe, expect, it } from "vitest";
import type { Membership } from "../api/types";
import { sectionsOf } from "./sections";

const member = (platform: boolean, ...roles: string[]): Membership => ({ org_id: "org_1", name: "Org", platform, roles });
const words = (membership: Membership) => sectionsOf(membership).map((section) => section.word);

describe("sectionsOf", () => {
  it("gives each person what is theirs, the first being home", () => {
    expect(words(member(false, "engineer"))).toEqual(["Find and book", "Clusters", "Market", "Wallet", "Statements", "API keys"]);
    expect(words(member(false, "owner"))).toEqual(["Hosts", "Earnings", "Market", "Statements", "API keys"]);
    expect(words(member(false, "owner", "finance"))[0]).toBe("Hosts");
    expect(words(member(true, "finance"))[0]).toBe("Payouts");
  });

  it("shows the platform's books to the platform only", () => {
    expect(words(member(false, "finance"))).not.toContain("Payouts");
    expect(words(member(true, "operator"))).toEqual(["API keys"]);
  });
});
