// What the daemon tells: JSON by fetch, and what is new as server-sent events. Read by fetch as well, since an EventSource
// cannot carry a token.
const TOKEN = "gradwarden-token";

export class SignInNeeded extends Error {}

export function keepToken(token) {
  sessionStorage.setItem(TOKEN, token);
}

function headers() {
  const token = sessionStorage.getItem(TOKEN);
  return token ? { Authorization: `Bearer ${token}` } : {};
}

async function answered(path, parameters, signal) {
  const given = Object.entries(parameters).filter(([, value]) => value !== undefined && value !== "");
  const answer = await fetch(`/api/${path}?${new URLSearchParams(given)}`, { headers: headers(), signal });
  if (answer.status === 401) throw new SignInNeeded();
  if (!answer.ok) throw new Error((await answer.text()).trim() || `the daemon answered ${answer.status}`);
  return answer;
}

export async function get(path, parameters = {}) {
  return (await answered(path, parameters)).json();
}

// Calls handlers[event](data) for what comes, until stop() is called; begins again when the connection ends.
// `parameters` is asked for at each beginning.
export class Live {
  constructor(parameters, handlers, onState) {
    this.parameters = parameters;
    this.handlers = handlers;
    this.onState = onState;
    this.abort = new AbortController();
    this.run();
  }

  stop() {
    this.abort.abort();
    this.onState(false);
  }

  async run() {
    let wait = 500;
    while (!this.abort.signal.aborted) {
      try {
        const answer = await answered("live", this.parameters(), this.abort.signal);
        this.onState(true);
        wait = 500;
        await this.read(answer.body.getReader());
      } catch (error) {
        if (error instanceof SignInNeeded || this.abort.signal.aborted) return;
      }
      this.onState(false);
      await new Promise((resume) => setTimeout(resume, wait + Math.random() * wait));
      wait = Math.min(wait * 2, 15000);
    }
  }

  async read(reader) {
    const decoder = new TextDecoder();
    let text = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      text += decoder.decode(value, { stream: true });
      const messages = text.split("\n\n");
      text = messages.pop();
      messages.forEach((message) => this.take(message));
    }
  }

  take(message) {
    const event = /^event: (.*)$/m.exec(message);
    const data = /^data: (.*)$/m.exec(message);
    if (event && data) this.handlers[event[1]]?.(JSON.parse(data[1]));
  }
}
