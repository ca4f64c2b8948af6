// The text that a wallet signs for Sign in with Solana, by the standard's grammar. A development wallet composes it like
// any other wallet would, so that the server's check meets the same bytes.
import type { SolanaSignInInput } from "@solana/wallet-standard-features";

type Fields = Pick<SolanaSignInInput, "statement" | "uri" | "version" | "chainId" | "nonce" | "issuedAt" | "expirationTime"> & { domain: string; address: string };

export function signInText(fields: Fields): string {
  let text = `${fields.domain} wants you to sign in with your Solana account:\n${fields.address}`;
  if (fields.statement) text += `\n\n${fields.statement}`;
  const lines = [
    ["URI", fields.uri],
    ["Version", fields.version],
    ["Chain ID", fields.chainId],
    ["Nonce", fields.nonce],
    ["Issued At", fields.issuedAt],
    ["Expiration Time", fields.expirationTime],
  ].flatMap(([name, value]) => (value ? [`${name}: ${value}`] : []));
  return lines.length === 0 ? text : `${text}\n\n${lines.join("\n")}`;
}
