import { type FileForm, periodFile } from "./queries";

const FORMS: [FileForm, string][] = [
  ["cryptio", "Cryptio"],
  ["quickbooks", "QuickBooks"],
  ["xero", "Xero"],
  ["quickbooks-sol", "QuickBooks, SOL"],
  ["xero-sol", "Xero, SOL"],
];

/** A month's files; only one that is closed has a report. */
export function Files({ org, month, final }: { org: string; month: string; final: boolean }) {
  return (
    <span className="line">
      {final && (
        <a href={periodFile(org, month, "report")} target="_blank" rel="noreferrer">
          Report
        </a>
      )}
      {FORMS.map(([form, name]) => (
        <a key={form} href={periodFile(org, month, form)} download>
          {name}
          {!final && <span className="visually-hidden"> of {month}, not final</span>}
        </a>
      ))}
    </span>
  );
}
