// The live connection. One tab a browser holds it, elected by a Web Lock, and passes signals on over a BroadcastChannel:
// HTTP/1.1 allows only six connections a host. Where there are no locks (plain HTTP), each tab holds its own.
import { SseParser } from "./sse";
import { INITIAL, isNews, parseSignal, reduce, type ClusterSignal, type LiveAction, type LiveState } from "./state";

const FIRST_BACKOFF_MS = 500;
const MAX_BACKOFF_MS = 10_000;
const WATCH_MS = 1_000;
/** The server sends a comment at least every 15 s; three missed ones mean a dead line. */
const SILENCE_MS = 45_000;

export interface Listener {
  /** The state changed. */
  changed: () => void;
  /** A cluster has a newer version. */
  news: (signal: ClusterSignal) => void;
  /** Signals may have been missed: everything live is to be read again. */
  resync: () => void;
  /** The session ended. */
  signedOut: () => void;
}

type Relay = { kind: "action"; action: LiveAction } | { kind: "resync" } | { kind: "hello" } | { kind: "state"; link: LiveState["link"]; lastEventId: string };

export class LiveStream {
  private current: LiveState = INITIAL;
  private readonly abort = new AbortController();
  private readonly channel: BroadcastChannel;
  private leading = false;

  constructor(
    private readonly org: string,
    private readonly listener: Listener,
  ) {
    this.channel = new BroadcastChannel(`muster.live.${org}`);
  }

  get state(): LiveState {
    return this.current;
  }

  start(): void {
    this.channel.onmessage = (event: MessageEvent<Relay>) => this.receive(event.data);
    this.relay({ kind: "hello" });
    const watch = setInterval(() => this.apply({ kind: "waited", at: Date.now() }), WATCH_MS);
    this.abort.signal.addEventListener("abort", () => clearInterval(watch));
    void this.elect();
  }

  stop(): void {
    this.abort.abort();
    this.channel.close();
  }

  private async elect(): Promise<void> {
    const lead = () => {
      this.leading = true;
      return this.connectForever();
    };
    // Absent outside secure contexts, whatever the types say.
    const locks = (navigator as { locks?: LockManager }).locks;
    if (locks === undefined) return lead();
    try {
      await locks.request(`muster.live.${this.org}`, { signal: this.abort.signal }, lead);
    } catch (error) {
      if (!this.abort.signal.aborted) throw error;
    }
  }

  private async connectForever(): Promise<void> {
    let backoff = FIRST_BACKOFF_MS;
    while (!this.abort.signal.aborted) {
      const opened = await this.connectOnce();
      if (opened === "signed out") {
        this.listener.signedOut();
        return;
      }
      this.share({ kind: "lost", at: Date.now() });
      backoff = opened ? FIRST_BACKOFF_MS : Math.min(backoff * 2, MAX_BACKOFF_MS);
      await this.pause(backoff * (0.5 + Math.random() / 2));
    }
  }

  /** Reads one connection to its end; whether it had been opened. */
  private async connectOnce(): Promise<boolean | "signed out"> {
    const connection = new AbortController();
    const signal = AbortSignal.any([this.abort.signal, connection.signal]);
    let silence: ReturnType<typeof setTimeout> | undefined;
    const heard = () => {
      clearTimeout(silence);
      silence = setTimeout(() => connection.abort(), SILENCE_MS);
    };
    let opened = false;
    try {
      heard();
      const resuming = this.current.lastEventId;
      const response = await fetch(`/v1/stream?org=${encodeURIComponent(this.org)}`, {
        headers: { Accept: "text/event-stream", ...(resuming === "" ? {} : { "Last-Event-ID": resuming }) },
        cache: "no-store",
        signal,
      });
      if (response.status === 401) return "signed out";
      if (!response.ok || response.body === null) return false;
      opened = true;
      this.share({ kind: "opened" });
      // Between the page's first reads and the first connection anything may have happened; later gaps are replayed.
      if (resuming === "") this.shareResync();
      await this.read(response.body, heard);
    } catch {
      // A cut line ends in a rejection; the loop above connects again.
    } finally {
      clearTimeout(silence);
    }
    return opened;
  }

  private async read(body: ReadableStream<Uint8Array>, heard: () => void): Promise<void> {
    const parser = new SseParser();
    const decoder = new TextDecoder();
    const reader = body.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      heard();
      for (const event of parser.push(decoder.decode(value, { stream: true }))) {
        const signal = parseSignal(event.type, event.data);
        if (signal !== null) this.share({ kind: "signal", eventId: event.id, signal });
      }
    }
  }

  private share(action: LiveAction): void {
    this.apply(action);
    this.relay({ kind: "action", action });
  }

  private shareResync(): void {
    this.listener.resync();
    this.relay({ kind: "resync" });
  }

  private receive(message: Relay): void {
    if (message.kind === "action") this.apply(message.action);
    if (message.kind === "resync") this.listener.resync();
    if (message.kind === "hello" && this.leading) this.relay({ kind: "state", link: this.current.link, lastEventId: this.current.lastEventId });
    if (message.kind === "state" && !this.leading) {
      this.current = { ...this.current, link: message.link, lastEventId: message.lastEventId };
      this.listener.changed();
    }
  }

  private relay(message: Relay): void {
    if (!this.abort.signal.aborted) this.channel.postMessage(message);
  }

  private apply(action: LiveAction): void {
    const before = this.current;
    const news = action.kind === "signal" && isNews(before, action.signal);
    this.current = reduce(before, action);
    if (news) this.listener.news(action.signal);
    if (this.current.link !== before.link) this.listener.changed();
  }

  private pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.abort.signal.addEventListener("abort", () => {
        clearTimeout(timer);
        resolve();
      });
    });
  }
}
