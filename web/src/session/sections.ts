// Which sections a membership sees. The server decides what it may do; this only leaves out what would be refused.
import type { Membership } from "../api/types";
import { hasRole } from "./session";

export type SectionPath =
  | "/o/$org/new"
  | "/o/$org/market"
  | "/o/$org/clusters"
  | "/o/$org/wallet"
  | "/o/$org/keys"
  | "/o/$org/hosts"
  | "/o/$org/earnings"
  | "/o/$org/statements"
  | "/o/$org/finance/payouts"
  | "/o/$org/finance/reconcile"
  | "/o/$org/finance/deposits"
  | "/o/$org/finance/books";

export interface Section {
  to: SectionPath;
  word: string;
}

export function sectionsOf(membership: Membership): Section[] {
  const engineer = hasRole(membership, "engineer");
  const owner = hasRole(membership, "owner");
  const finance = hasRole(membership, "finance");
  const sections: (Section | false)[] = [
    finance && membership.platform && { to: "/o/$org/finance/payouts", word: "Payouts" },
    finance && membership.platform && { to: "/o/$org/finance/reconcile", word: "Reconcile" },
    finance && membership.platform && { to: "/o/$org/finance/deposits", word: "Deposits" },
    finance && membership.platform && { to: "/o/$org/finance/books", word: "Books" },
    engineer && { to: "/o/$org/new", word: "Find and book" },
    engineer && { to: "/o/$org/clusters", word: "Clusters" },
    owner && { to: "/o/$org/hosts", word: "Hosts" },
    (owner || finance) && { to: "/o/$org/earnings", word: "Earnings" },
    (engineer || owner) && { to: "/o/$org/market", word: "Market" },
    finance && !engineer && { to: "/o/$org/clusters", word: "Clusters" },
    (engineer || finance) && { to: "/o/$org/wallet", word: "Wallet" },
    (engineer || owner || finance) && { to: "/o/$org/statements", word: "Statements" },
    { to: "/o/$org/keys", word: "API keys" },
  ];
  return sections.filter((section) => section !== false);
}
