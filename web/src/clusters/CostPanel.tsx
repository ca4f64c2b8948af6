import type { Cluster, ClusterCost } from "../api/types";
import { SafePanel } from "../design/Loaded";
import { Empty, MoneyText, Time } from "../design/parts";
import { formatTicking, ticking } from "../money/money";
import { formatDuration } from "../time/time";
import { useNow } from "../time/useNow";
import { hasEnded } from "./queries";

const TICK_MS = 250;

export function CostPanel({ cluster }: { cluster: Cluster }) {
  const { cost } = cluster;
  return <SafePanel title="Cost">{cost === undefined ? <Empty>The cost appears when the cluster is reserved.</Empty> : <Cost cluster={cluster} cost={cost} />}</SafePanel>;
}

function Cost({ cluster, cost }: { cluster: Cluster; cost: ClusterCost }) {
  const ended = hasEnded(cluster);
  return (
    <div className="stack">
      <div>
        <p className="muted">{ended ? "Cost" : "Spent so far"}</p>
        {cluster.billing ? <Meter cost={cost} /> : <p className="meter">{formatTicking(ticking({ charged: cost.charged, perHour: cost.per_hour, hold: cost.hold }, 0))}</p>}
      </div>
      <dl className="pairs">
        <div>
          <dt>Per hour now</dt>
          <dd>
            <MoneyText of={cost.per_hour} />
          </dd>
        </div>
        <div>
          <dt>Time billed</dt>
          <dd>
            {formatDuration(cost.billed_ms)} of {formatDuration(cost.duration_ms)}
          </dd>
        </div>
        {cluster.ends_at !== undefined && !ended && (
          <div>
            <dt>Stops at</dt>
            <dd>
              <Time at={cluster.ends_at} />
            </dd>
          </div>
        )}
        <div>
          <dt>Hold, the most it can cost</dt>
          <dd>
            <MoneyText of={cost.hold} />
          </dd>
        </div>
        <div data-total>
          <dt>{ended ? "Returned" : "Back if released now"}</dt>
          <dd>
            <MoneyText of={ended ? cost.refunded : cost.refund_now} />
          </dd>
        </div>
      </dl>
    </div>
  );
}

/** Ticks from the server's figure and rate; not a live region, or a screen reader would never stop. */
function Meter({ cost }: { cost: ClusterCost }) {
  const now = useNow(TICK_MS);
  return <p className="meter">{formatTicking(ticking({ charged: cost.charged, perHour: cost.per_hour, hold: cost.hold }, now - Date.parse(cost.as_of)))}</p>;
}
