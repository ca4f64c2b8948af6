// Who is signed in, where they may act, and which network this is.
import { queryOptions } from "@tanstack/react-query";
import { client, unwrap } from "../api/client";
import { asApiError } from "../api/problem";
import type { Me, Membership } from "../api/types";
import { base64 } from "../wallet/base58";
import type { SignInChallenge, Signed } from "../wallet/wallets";

export const networkQuery = queryOptions({
  queryKey: ["network"],
  queryFn: ({ signal }) => unwrap(client.GET("/v1/network", { signal })),
  staleTime: Infinity,
});

/** The signed-in person, null for nobody. */
export const meQuery = queryOptions({
  queryKey: ["me"],
  queryFn: async ({ signal }): Promise<Me | null> => {
    try {
      return await unwrap(client.GET("/v1/me", { signal }));
    } catch (error) {
      if (asApiError(error).code === "unauthenticated") return null;
      throw error;
    }
  },
  staleTime: Infinity,
});

export async function challenge(address: string): Promise<SignInChallenge> {
  const input = await unwrap(client.POST("/v1/auth/nonce", { body: { address } }));
  return {
    domain: input.domain,
    address: input.address,
    statement: input.statement,
    uri: input.uri,
    version: input.version,
    chainId: input.chain_id,
    nonce: input.nonce,
    issuedAt: input.issued_at,
    expirationTime: input.expiration_time,
    text: input.message,
  };
}

export function redeem(address: string, signed: Signed): Promise<Me> {
  return unwrap(client.POST("/v1/auth/sign-in", { body: { address, signed_message: base64(signed.message), signature: base64(signed.signature) } }));
}

export function signOut(): Promise<unknown> {
  return unwrap(client.POST("/v1/auth/sign-out"));
}

export type Role = "engineer" | "owner" | "finance" | "admin" | "operator";

export function hasRole(membership: Membership, ...roles: Role[]): boolean {
  return roles.some((role) => membership.roles.includes(role));
}
