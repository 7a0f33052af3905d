// The backend of the served page: every number comes from the server, by the endpoints of docs/serve_api.md.

const LONGEST_SLIDING = 256; // tokens
const LOADING = 503; // the status while the models are loaded, or while too many others ask
const PATIENCE = 1000; // ms before the models are asked for again

/** What a server answered instead of a result: its words, and the HTTP status. */
export class ServerError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** The functions of the page's backend, over `fetch`. */
export function serverBackend() {
  let key = storedKey();
  let models = [];

  async function send(path, body, signal) {
    const headers = { "Content-Type": "application/json" };
    if (key) headers.Authorization = `Bearer ${key}`;
    const options = body ? { method: "POST", headers, body: JSON.stringify(body), signal } : { headers, signal };
    let response;
    try {
      response = await fetch(new URL(path, document.baseURI), options);
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ServerError("The server does not answer. Is it still running?", 0);
    }
    if (!response.ok) throw await asError(response);
    return response;
  }

  async function answer(path, body, signal) {
    return (await send(path, body, signal)).json();
  }

  /** The events of a stream, one by one; the reason why the text ended. */
  async function stream(path, body, signal, onChoice) {
    const response = await send(path, { ...body, stream: true }, signal);
    let reason = null;
    for await (const event of serverSentEvents(response)) {
      if (event.error) throw new ServerError(event.error.message, 200);
      for (const choice of event.choices) {
        onChoice(choice);
        reason = choice.finish_reason ?? reason;
      }
    }
    return reason;
  }

  return {
    note: "Computed by the server of this page. The page loads nothing from anywhere else.",

    useKey(newKey) {
      key = newKey;
      storeKey(newKey);
    },

    hasTrainingText: true, // of some models at least

    /** The models; while the server loads them it is asked again and again. */
    async models(signal) {
      for (;;) {
        try {
          models = (await answer("v1/models", null, signal)).data;
          return models;
        } catch (error) {
          if (error.status !== LOADING) throw error;
          await new Promise((resolve) => setTimeout(resolve, PATIENCE));
        }
      }
    },

    analyze(model, { signal, ...request }) {
      return answer("v1/analyze", { model, ...request }, signal);
    },

    complete(model, text, sampling, { signal, onToken }) {
      const { max_tokens } = sampling;
      const prompt = withRoom(text, models.find(({ id }) => id === model).context_length, max_tokens);
      const body = { model, prompt, ...samplingFields(sampling), max_tokens, explain: true };
      return stream("v1/completions", body, signal, (choice) => {
        if (choice.makegpt) onToken({ text: choice.text, ...choice.makegpt });
      });
    },

    chat(model, messages, sampling, { signal, onToken }) {
      const body = { model, messages, ...samplingFields(sampling) }; // as long as the context has room for
      return stream("v1/chat/completions", body, signal, (choice) => {
        if (choice.delta.content) onToken({ text: choice.delta.content });
      });
    },

    async tokenizations(text, { signal } = {}) {
      return (await answer("v1/tokenizations", { text }, signal)).tokenizers;
    },
  };
}

/**
 * The end of the tokens `prompt` that leaves room for `most` more. A context of up to 256 tokens slides with the text, a longer one
 * ends it. A text that is not tokens yet stays as it is.
 */
function withRoom(prompt, contextLength, most) {
  if (typeof prompt === "string" || contextLength <= LONGEST_SLIDING || prompt.length + most <= contextLength) return prompt;
  return prompt.slice(-Math.max(1, contextLength - most));
}

/** The fields of a request; a filter that is off is left out. */
function samplingFields({ temperature, top_k, top_p, min_p, seed }) {
  const filters = Object.entries({ top_k, top_p, min_p }).filter(([, value]) => value !== null);
  return { temperature, seed, ...Object.fromEntries(filters) };
}

/** The JSON objects of a text/event-stream, up to [DONE]. */
async function* serverSentEvents(response) {
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  let buffer = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) throw new ServerError("The server closed the connection before the text was finished.", 200);
      buffer += decoder.decode(value, { stream: true });
      const events = buffer.split("\n\n");
      buffer = events.pop();
      for (const event of events) {
        const data = event.split("\n").find((line) => line.startsWith("data: "))?.slice(6);
        if (data === "[DONE]") return;
        if (data) yield JSON.parse(data);
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

async function asError(response) {
  let message = `The server answers ${response.status} ${response.statusText}`.trim();
  try {
    message = (await response.json()).error.message ?? message;
  } catch {
    // not an error of ours: the status says what there is to say
  }
  return new ServerError(message, response.status);
}

// The key stays in the tab: it is gone when the tab is closed. Some browsers refuse to store anything.
function storedKey() {
  try {
    return sessionStorage.getItem("makegpt-key");
  } catch {
    return null;
  }
}

function storeKey(key) {
  try {
    sessionStorage.setItem("makegpt-key", key);
  } catch {
    // the key lasts until the page is loaded again
  }
}
