// The wire format of server-sent events, read from a fetch body. EventSource is not used: it cannot be told where to resume
// when the stream moves to another tab, nor that the line has gone silent.

export interface ServerEvent {
  id: string;
  type: string;
  data: string;
}

const MAX_BUFFER_CHARS = 1_000_000;

/** A parser that keeps what is incomplete between chunks. */
export class SseParser {
  private buffer = "";
  private id = "";
  private type = "";
  private data: string[] = [];

  /** Takes the next chunk of text and returns the events that it completes. */
  push(chunk: string): ServerEvent[] {
    this.buffer += chunk;
    if (this.buffer.length > MAX_BUFFER_CHARS) throw new RangeError("a server-sent event exceeds its limit");
    const events: ServerEvent[] = [];
    for (;;) {
      // A lone CR at the end may be the first half of CRLF.
      const end = /\r\n|\n|\r(?!$)/.exec(this.buffer);
      if (end === null) return events;
      const line = this.buffer.slice(0, end.index);
      this.buffer = this.buffer.slice(end.index + end[0].length);
      const event = this.line(line);
      if (event !== null) events.push(event);
    }
  }

  private line(line: string): ServerEvent | null {
    if (line === "") return this.dispatch();
    if (line.startsWith(":")) return null;
    const colon = line.indexOf(":");
    const field = colon === -1 ? line : line.slice(0, colon);
    const value = colon === -1 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "data") this.data.push(value);
    if (field === "event") this.type = value;
    if (field === "id" && !value.includes("\0")) this.id = value;
    return null;
  }

  private dispatch(): ServerEvent | null {
    const event = this.data.length === 0 ? null : { id: this.id, type: this.type || "message", data: this.data.join("\n") };
    this.type = "";
    this.data = [];
    return event;
  }
}
