// Requests to the server that this page came from.

let token = "";
let wanted = async () => "";

/** Says how to ask the user for the token, where the server wants one. */
export function onToken(ask) {
  wanted = ask;
}

async function send(path, body) {
  const headers = { "Content-Type": "application/json" };
  if (token) headers.Authorization = `Bearer ${token}`;
  const response = await fetch(path, {
    method: body ? "POST" : "GET",
    headers,
    body: body && JSON.stringify(body),
  });
  if (response.status === 401) {
    token = await wanted();
    if (token) return send(path, body);
  }
  if (!response.ok) {
    const found = await response.json().catch(() => null);
    const told = found?.error?.message ?? `The server said ${response.status}.`;
    throw Object.assign(new Error(told), { code: found?.error?.code });
  }
  return response;
}

/** Describes the model. */
export async function model() {
  return (await (await send("/v1/models")).json()).data[0];
}

/** Names the pictures that are offered. */
export async function examples() {
  return (await send("/examples")).json();
}

/** Makes an object URL of the picture as the model sees it. */
export async function square(uri) {
  return URL.createObjectURL(await (await send("/view", { url: uri })).blob());
}

/** Answers a conversation at once: {content, boxes}. */
export async function answer(name, messages, fields) {
  const body = { model: name, messages, locations: "pixels", ...fields };
  const found = await (await send("/v1/chat/completions", body)).json();
  return found.choices[0].message;
}

/** Answers a conversation piece by piece; gives {content, boxes} at the end. */
export async function stream(name, messages, grown) {
  const body = { model: name, messages, locations: "pixels", stream: true };
  const response = await send("/v1/chat/completions", body);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  const message = { content: "", boxes: [] };
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return message;
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const data = event.slice("data: ".length);
      if (data === "[DONE]") continue;
      const found = JSON.parse(data);
      if (found.error) throw new Error(found.error.message);
      const delta = found.choices[0]?.delta ?? {};
      message.content += delta.content ?? "";
      message.boxes = delta.boxes ?? message.boxes;
      grown(message.content);
    }
  }
}
