// Terminal control sequences (ECMA-48): colours, cursor moves, titles. Ray writes them whether or not a terminal reads.
// eslint-disable-next-line no-control-regex
const CONTROL = /\u001b(?:\[[0-?]*[ -/]*[@-~]|\][^\u0007\u001b]*(?:\u0007|\u001b\\)|[@-Z\\^_])/g;

/** What a program has printed, without what only a terminal understands. */
export function plainLogs(logs: string): string {
  return logs.replaceAll(CONTROL, "");
}
