import { Link, useParams } from "@tanstack/react-router";
import { AuditLog } from "./AuditLog";
import { CloseMonth } from "./CloseMonth";
import { Months } from "./Months";

/** Where finance closes its months, takes them away as files, and reads who did what. */
export function BooksPage() {
  const { org } = useParams({ from: "/o/$org/finance/books" });
  return (
    <div className="page">
      <div className="page-head">
        <h1>Books</h1>
        <CloseMonth org={org} />
      </div>
      <p className="muted">Closing a month freezes its figures: nothing can be posted into it any more, and its hash shows that it still says the same.</p>
      <Months org={org} />
      <p className="muted">
        The report is a page to print or to save as PDF, with the month&apos;s accounts and what they rest on. Cryptio takes every movement of tokens with its transaction; QuickBooks and Xero take the month&apos;s journal, and that of the treasury&apos;s SOL as a second file. Each transaction in SOL is in the{" "}
        <Link to="/o/$org/finance/sol" params={{ org }}>
          SOL journal
        </Link>
        .
      </p>
      <AuditLog org={org} />
    </div>
  );
}
