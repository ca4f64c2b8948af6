import { useNavigate, useSearch } from "@tanstack/react-router";
import { Button, Field } from "../design/parts";
import "./books.css";
import { booksSearch } from "./search";
import { ACTIONS } from "./words";

const MOST_CHARS = 100;
const FROM = "/o/$org/finance/books";

/** What of the audit log is shown; it stands in the address. */
export function AuditFilter() {
  const search = useSearch({ from: FROM });
  const navigate = useNavigate({ from: FROM });
  const filtered = Object.keys(search).length > 0;
  return (
    <form
      key={JSON.stringify(search)}
      className="audit-filter"
      aria-label="Filter the audit log"
      onSubmit={(event) => {
        event.preventDefault();
        void navigate({ search: booksSearch(Object.fromEntries(new FormData(event.currentTarget))), resetScroll: false });
      }}
    >
      <Field label="Who">{(props) => <input {...props} className="input" name="person" maxLength={MOST_CHARS} placeholder="Part of a name" defaultValue={search.person} />}</Field>
      <Field label="What was done">
        {(props) => (
          <select {...props} className="input" name="action" defaultValue={search.action ?? ""}>
            <option value="">Anything</option>
            {Object.entries(ACTIONS).map(([action, words]) => (
              <option key={action} value={action}>
                {words}
              </option>
            ))}
          </select>
        )}
      </Field>
      <Field label="Of what">{(props) => <input {...props} className="input mono" name="subject" maxLength={MOST_CHARS} placeholder="bat_… or 2026-10" defaultValue={search.subject} />}</Field>
      <Field label="First day (UTC)">{(props) => <input {...props} className="input" type="date" name="from" defaultValue={search.from} />}</Field>
      <Field label="Last day (UTC)">{(props) => <input {...props} className="input" type="date" name="to" defaultValue={search.to} />}</Field>
      <div className="line" data-gap="small" data-nowrap>
        <Button type="submit">Filter</Button>
        {filtered && (
          <Button look="quiet" onClick={() => void navigate({ search: {}, resetScroll: false })}>
            Clear
          </Button>
        )}
      </div>
    </form>
  );
}
