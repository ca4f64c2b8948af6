import { useInfiniteQuery } from "@tanstack/react-query";
import { useSearch } from "@tanstack/react-router";
import type { AuditLine } from "../api/types";
import { LoadedList, SafePanel } from "../design/Loaded";
import { Empty, ShortId, TableScroll, Time } from "../design/parts";
import { AuditFilter } from "./AuditFilter";
import { auditFile, auditQuery } from "./queries";
import { actionWords, detailPairs } from "./words";

/** Who did what in finance, newest first. */
export function AuditLog({ org }: { org: string }) {
  const search = useSearch({ from: "/o/$org/finance/books" });
  const log = useInfiniteQuery(auditQuery(org, search));
  const filtered = Object.keys(search).length > 0;
  return (
    <SafePanel
      title="Audit log"
      flush
      aside={
        <a className="button" data-size="small" href={auditFile(org, search)} download>
          {filtered ? "These as CSV" : "All of it as CSV"}
        </a>
      }
    >
      <AuditFilter />
      <LoadedList query={log} rows={3} empty={<Empty>{filtered ? "Nothing in the log is like that." : "Nobody has done anything yet that is kept here."}</Empty>}>
        {(lines) => (
          <TableScroll label="Audit log">
            <table>
              <thead>
                <tr>
                  <th scope="col" className="number">
                    No.
                  </th>
                  <th scope="col">When</th>
                  <th scope="col">Who</th>
                  <th scope="col">What</th>
                  <th scope="col">Of</th>
                  <th scope="col">Hash</th>
                </tr>
              </thead>
              <tbody>
                {lines.map((line) => (
                  <Line key={line.seq} line={line} />
                ))}
              </tbody>
            </table>
          </TableScroll>
        )}
      </LoadedList>
    </SafePanel>
  );
}

function Line({ line }: { line: AuditLine }) {
  return (
    <tr>
      <td className="number">{line.seq}</td>
      <td>
        <Time at={line.at} utc />
      </td>
      <td>{line.by ?? <span className="muted">the platform</span>}</td>
      <td className="wide">
        {actionWords(line.action)}
        {detailPairs(line.details).map(([name, value]) => (
          <div key={name} className="muted">
            {name}: {value}
          </div>
        ))}
      </td>
      <td>
        <ShortId id={line.subject} what="Subject" keep={4} />
      </td>
      <td>
        <ShortId id={line.hash} what="Hash" keep={4} />
      </td>
    </tr>
  );
}
