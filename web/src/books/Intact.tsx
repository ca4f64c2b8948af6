import { Toned } from "../design/parts";

/** Whether the ledger still says what was frozen; not known yet where that is undefined. */
export function Intact({ intact }: { intact: boolean | undefined }) {
  if (intact === false) return <Toned tone="bad">The ledger says otherwise now</Toned>;
  return <Toned tone="ok">{intact === true ? "Closed, still the same" : "Closed"}</Toned>;
}
