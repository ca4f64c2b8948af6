/** An inclusion proof as GET /v1/payouts/{payout}/proof has it. */
export interface Inclusion {
  leaf: string;
  index: number;
  size: number;
  path: readonly string[];
  root: string;
}

/**
 * Says whether the path leads from the leaf to the root: RFC 9162, section 2.1.3.2, with SHA-256. The browser computes it, so that the
 * server need not be believed.
 */
export async function isIncluded({ leaf, index, size, path, root }: Inclusion): Promise<boolean> {
  if (index < 0 || index >= size) return false;
  let place = index;
  let last = size - 1;
  let hash = await sha256([Uint8Array.of(0), new TextEncoder().encode(leaf)]);
  for (const step of path) {
    if (last === 0) return false;
    const neighbour = decode(step);
    if (place % 2 === 1 || place === last) {
      hash = await sha256([Uint8Array.of(1), neighbour, hash]);
      while (place % 2 === 0 && place !== 0) {
        place = Math.floor(place / 2);
        last = Math.floor(last / 2);
      }
    } else {
      hash = await sha256([Uint8Array.of(1), hash, neighbour]);
    }
    place = Math.floor(place / 2);
    last = Math.floor(last / 2);
  }
  return last === 0 && encode(hash) === root;
}

async function sha256(parts: readonly Uint8Array[]): Promise<Uint8Array> {
  const whole = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return new Uint8Array(await crypto.subtle.digest("SHA-256", whole));
}

function decode(base64url: string): Uint8Array {
  return Uint8Array.from(atob(base64url.replaceAll("-", "+").replaceAll("_", "/")), (character) => character.charCodeAt(0));
}

function encode(bytes: Uint8Array): string {
  return btoa(String.fromCharCode(...bytes))
    .replaceAll("+", "-")
    .replaceAll("/", "_")
    .replace(/=+$/, "");
}
