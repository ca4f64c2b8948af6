import type { Cluster } from "../api/types";
import { SafePanel } from "../design/Loaded";
import { ShortId, Time, Toned } from "../design/parts";

type Receipt = NonNullable<Cluster["receipt"]>;

/** What was delivered, compared with what was booked; its hash goes into settlement. */
export function ReceiptPanel({ receipt }: { receipt: Receipt }) {
  return (
    <SafePanel title="Delivery receipt" aside={<Toned tone="ok">Delivered as booked</Toned>}>
      <div className="stack" data-gap="small">
        <dl className="pairs">
          <div>
            <dt>Made</dt>
            <dd>
              <Time at={receipt.made_at} />
            </dd>
          </div>
          <div>
            <dt>SHA-256</dt>
            <dd>
              <ShortId id={receipt.sha256} what="Receipt hash" />
            </dd>
          </div>
        </dl>
        <details>
          <summary>Show the document</summary>
          {/* A region that scrolls must be reachable by keyboard. */}
          {/* eslint-disable-next-line jsx-a11y/no-noninteractive-tabindex */}
          <pre className="document" role="region" aria-label="Receipt document" tabIndex={0}>
            {indented(receipt.document)}
          </pre>
        </details>
      </div>
    </SafePanel>
  );
}

function indented(document: string): string {
  try {
    return JSON.stringify(JSON.parse(document), null, 2);
  } catch {
    return document;
  }
}
