import { useQuery } from "@tanstack/react-query";
import { networkQuery } from "../session/session";
import { icons } from "./icons";
import { ShortId } from "./parts";

/** A chain transaction: its signature, and the explorer where the network has one. */
export function TransactionLink({ signature }: { signature: string }) {
  const network = useQuery(networkQuery);
  const template = network.data?.explorer_transaction;
  return (
    <span className="copyable">
      <ShortId id={signature} what="Transaction signature" />
      {template !== undefined && template !== "" && (
        <a className="icon-button" href={template.replace("{signature}", encodeURIComponent(signature))} target="_blank" rel="noopener noreferrer">
          {icons.external}
          <span className="visually-hidden">Open in the explorer</span>
        </a>
      )}
    </span>
  );
}
