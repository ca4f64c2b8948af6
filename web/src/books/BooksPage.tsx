import { useParams } from "@tanstack/react-router";
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
      <AuditLog org={org} />
    </div>
  );
}
