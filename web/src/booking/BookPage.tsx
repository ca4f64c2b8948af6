import { useQuery } from "@tanstack/react-query";
import { useNavigate, useParams, useSearch } from "@tanstack/react-router";
import { SafePanel } from "../design/Loaded";
import { Offers } from "./Offers";
import { QuotePanel } from "./QuotePanel";
import { offersQuery } from "./queries";
import { bookingSearch, specOf, type BookingChange } from "./search";
import { Shape } from "./Shape";
import "./booking.css";

export function BookPage() {
  const { org } = useParams({ from: "/o/$org/new" });
  const search = useSearch({ from: "/o/$org/new" });
  const navigate = useNavigate({ from: "/o/$org/new" });
  // The form's choices come from all offers, whatever the list is filtered by.
  const all = useQuery(offersQuery());
  const set = (change: BookingChange) => void navigate({ search: (previous) => bookingSearch({ ...previous, ...change }), replace: true, resetScroll: false });
  return (
    <div className="page">
      <div className="page-head">
        <h1>Find and book</h1>
      </div>
      <div className="columns">
        <div className="stack">
          <SafePanel title="Idle now" flush>
            <Offers org={org} search={search} set={set} />
          </SafePanel>
          <SafePanel title="Cluster">
            <Shape offers={all.data ?? []} search={search} set={set} />
          </SafePanel>
        </div>
        <div className="sticky">
          <QuotePanel org={org} spec={specOf(search)} waitsForPrice={search.kind === "spot" && search.max === undefined} set={set} />
        </div>
      </div>
    </div>
  );
}
