// What the audit log's words mean to people.

export const ACTIONS: Record<string, string> = {
  "batch.approve": "Approved a payout batch",
  "batch.cancel": "Asked for a payout batch to be cancelled",
  "batch.resolve": "Said how a frozen batch ended",
  "difference.update": "Looked into a difference",
  "fee.add": "Set a fee",
  "period.ask_reopen": "Asked for a month to be opened again",
  "period.close": "Closed a month",
  "period.reopen": "Agreed, and opened a month again",
  "run.approve": "Approved a payout run's drafts",
  "run.start": "Started a payout run",
  "schedule.set": "Set when payout runs begin",
  "suspense.credited": "Credited a deposit in suspense",
  "suspense.held": "Held a deposit in suspense",
  "suspense.kept": "Kept a deposit in suspense",
  "suspense.refunded": "Sent a deposit in suspense back",
};

/** An action in a sentence; one that this console does not know, as it is. */
export function actionWords(action: string): string {
  return ACTIONS[action] ?? action;
}

/** An event's details as name and value; none where they are no object. */
export function detailPairs(details: string): [string, string][] {
  let parsed: unknown;
  try {
    parsed = JSON.parse(details);
  } catch {
    return details === "" ? [] : [["details", details]];
  }
  if (typeof parsed !== "object" || parsed === null) return [];
  return Object.entries(parsed).flatMap(([name, value]): [string, string][] => {
    if (value === null || value === "") return [];
    return [[name.replaceAll("_", " "), typeof value === "string" ? value : Array.isArray(value) ? value.map((one) => (typeof one === "string" ? one : JSON.stringify(one))).join(", ") : JSON.stringify(value)]];
  });
}

/** "2026-10" as "October 2026". */
export function monthWords(month: string): string {
  return new Date(`${month}-01T00:00:00Z`).toLocaleDateString("en", { month: "long", year: "numeric", timeZone: "UTC" });
}
