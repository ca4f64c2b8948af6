import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import type { Statement } from "../api/types";
import { Loaded, SafePanel } from "../design/Loaded";
import { Empty, MoneyText, TableScroll } from "../design/parts";
import { isZero } from "../money/money";
import { shortHours } from "./month";
import { Credits, Movements, StatementSkeleton, Sum } from "./parts";
import { statementQuery } from "./queries";

export function CustomerStatement({ org, month }: { org: string; month: string }) {
  const statement = useQuery(statementQuery(org, month));
  return (
    <Loaded query={statement} skeleton={<StatementSkeleton />}>
      {(loaded) => <Content org={org} statement={loaded} />}
    </Loaded>
  );
}

function Content({ org, statement }: { org: string; statement: Statement }) {
  const { opening, closing, totals, clusters, movements, holds } = statement;
  const credits = clusters.flatMap((cluster) => cluster.credits.map((credit) => ({ ...credit, name: cluster.name })));
  return (
    <>
      <dl className="figures">
        <div className="figure">
          <dt>Charged</dt>
          <dd>
            <MoneyText of={totals.charges} />
          </dd>
          <dd className="hint">{shortHours(totals.gpu_hours)} GPU-hours</dd>
        </div>
        <div className="figure">
          <dt>Not charged</dt>
          <dd>
            <MoneyText of={totals.not_charged} />
          </dd>
          <dd className="hint">not delivered, so never taken</dd>
        </div>
        <div className="figure">
          <dt>{statement.open ? "Balance now" : "Closing balance"}</dt>
          <dd>
            <MoneyText of={closing.total} />
          </dd>
          <dd className="hint">{statement.open ? "the month goes on" : "at the end of the month"}</dd>
        </div>
      </dl>
      <div className="two">
        <SafePanel title="Balance">
          <Sum
            lines={[
              { word: "Opening", amount: opening.total, total: true },
              { word: "Deposits", amount: totals.deposits, sign: "+", optional: true },
              { word: "Withdrawals", amount: totals.withdrawals, sign: "−", optional: true },
              { word: "GPU time", amount: totals.charges, sign: "−" },
              { word: "Given back", amount: totals.credits, sign: "+", optional: true },
              { word: "Other", amount: totals.other, optional: true },
              { word: statement.open ? "Now" : "Closing", amount: closing.total, total: true },
              { word: "of it set aside for clusters", amount: closing.held, part: true, optional: true },
            ]}
          />
        </SafePanel>
        <SafePanel title="Clusters" flush>
          {clusters.length === 0 ? <Empty>No GPU was used in this month.</Empty> : <Clusters org={org} clusters={clusters} />}
        </SafePanel>
      </div>
      {credits.length > 0 && (
        <SafePanel title="Not delivered, and so not charged" flush>
          <Credits head="Cluster" amount="Would have cost" credits={credits} />
        </SafePanel>
      )}
      <SafePanel title="Movements" flush>
        {movements.length === 0 ? <Empty>Nothing came in or went out but for GPU time.</Empty> : <Movements label="Movements" movements={movements} />}
      </SafePanel>
      {holds.length > 0 && (
        <SafePanel title="Set aside and given back" aside={<span className="muted">moves within the balance</span>} flush>
          <Movements label="Set aside and given back" movements={holds} />
        </SafePanel>
      )}
    </>
  );
}

function Clusters({ org, clusters }: { org: string; clusters: Statement["clusters"] }) {
  return (
    <TableScroll label="Charges per cluster">
      <table>
        <thead>
          <tr>
            <th scope="col">Cluster</th>
            <th scope="col">GPU</th>
            <th scope="col" className="number">
              GPU-hours
            </th>
            <th scope="col" className="number">
              Charged
            </th>
            <th scope="col" className="number">
              Not charged
            </th>
          </tr>
        </thead>
        <tbody>
          {clusters.map((cluster) => (
            <tr key={cluster.cluster_id}>
              <th scope="row">
                <Link to="/o/$org/clusters/$id" params={{ org, id: cluster.cluster_id }} className="row-link">
                  {cluster.name}
                </Link>
              </th>
              <td>{cluster.gpu_model}</td>
              <td className="number">{shortHours(cluster.gpu_hours)}</td>
              <td className="number">
                <MoneyText of={cluster.charged} />
              </td>
              <td className="number">{isZero(cluster.not_charged) ? <span className="muted">nothing</span> : <MoneyText of={cluster.not_charged} />}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </TableScroll>
  );
}
