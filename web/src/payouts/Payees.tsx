import type { PayableSummary } from "../api/types";
import { MoneyText, ShortId, TableScroll } from "../design/parts";
import { PURPOSE_WORDS } from "./words";

/** Whom the next run pays, or holds back and why. */
export function Payees({ payees, label, reasons }: { payees: PayableSummary["payees"]; label: string; reasons: boolean }) {
  return (
    <TableScroll label={label}>
      <table>
        <thead>
          <tr>
            <th scope="col">Payee</th>
            <th scope="col" className="not-narrow">
              For
            </th>
            <th scope="col">{reasons ? "Why" : "Address"}</th>
            <th scope="col" className="number">
              Amount
            </th>
          </tr>
        </thead>
        <tbody>
          {payees.map((payee, index) => (
            <tr key={`${payee.org_id} ${payee.purpose} ${index}`}>
              <th scope="row">{payee.name}</th>
              <td className="not-narrow">{PURPOSE_WORDS[payee.purpose]}</td>
              <td>{reasons ? payee.reason : payee.address !== undefined && <ShortId id={payee.address} what="Payout address" keep={4} />}</td>
              <td className="number">
                <MoneyText of={payee.amount} />
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </TableScroll>
  );
}
