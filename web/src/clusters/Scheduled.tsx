// Bookings that have not become a cluster yet: they wait for their start.
import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { client, unwrap } from "../api/client";
import { useAction } from "../api/useAction";
import type { Booking } from "../api/types";
import { ActionError, SafePanel } from "../design/Loaded";
import { Button, Dialog, MoneyText, TableScroll, Time } from "../design/parts";
import { durationWords } from "../time/time";
import { useNow } from "../time/useNow";
import { formatDuration } from "../time/time";
import { scheduledQuery } from "./queries";

const TICK_MS = 10_000;

/** Nothing is shown while there are none, which is usual. */
export function Scheduled({ org }: { org: string }) {
  const query = useQuery(scheduledQuery(org));
  const now = useNow(TICK_MS);
  if (query.data === undefined || query.data.length === 0) return null;
  return (
    <SafePanel title="Scheduled" flush>
      <TableScroll label="Scheduled bookings">
        <table>
          <thead>
            <tr>
              <th scope="col">Starts</th>
              <th scope="col">GPUs</th>
              <th scope="col">For</th>
              <th scope="col" className="number">
                Held
              </th>
              <th scope="col" className="tight">
                <span className="visually-hidden">Cancel</span>
              </th>
            </tr>
          </thead>
          <tbody>
            {query.data.map((booking) => (
              <tr key={booking.id}>
                <th scope="row">
                  {booking.starts_at !== undefined && (
                    <>
                      <Time at={booking.starts_at} /> <span className="muted nowrap">in {formatDuration(Date.parse(booking.starts_at) - now)}</span>
                    </>
                  )}
                </th>
                <td className="nowrap">
                  {booking.spec.node_count} × {booking.spec.gpus_per_node} {booking.gpu_model ?? booking.spec.gpu_model}
                </td>
                <td className="nowrap">{durationWords(booking.spec.duration)}</td>
                <td className="number">
                  <MoneyText of={booking.hold} />
                </td>
                <td className="tight">
                  <Cancel org={org} booking={booking} />
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </TableScroll>
    </SafePanel>
  );
}

function Cancel({ org, booking }: { org: string; booking: Booking }) {
  const [open, setOpen] = useState(false);
  const cancel = useAction({
    run: (_: undefined, header) => unwrap(client.POST("/v1/bookings/{id}/cancel", { params: { path: { id: booking.id }, query: { org }, header } })),
    invalidates: [["bookings", org], ["wallet", org]],
    done: "Booking cancelled",
    onDone: () => setOpen(false),
  });
  return (
    <>
      <Button size="small" onClick={() => setOpen(true)}>
        Cancel
      </Button>
      <Dialog open={open} title="Cancel this booking?" onClose={() => setOpen(false)}>
        <p>
          Its GPUs are promised to you until then. Cancelling costs nothing: <MoneyText of={booking.hold} /> comes back at once.
        </p>
        <ActionError error={cancel.error} />
        <div className="dialog-actions">
          <Button onClick={() => setOpen(false)}>Keep it</Button>
          <Button look="danger" busy={cancel.isPending} onClick={() => cancel.mutate(undefined)}>
            Cancel booking
          </Button>
        </div>
      </Dialog>
    </>
  );
}
