// Requests to the server. Whatever goes wrong becomes an Error with a message for the reader.

const NO_ANSWER = "The server does not answer. Is it still running?";

async function answered(request) {
  try {
    return await request;
  } catch (error) {
    throw error.name === "AbortError" ? error : new Error(NO_ANSWER);
  }
}

async function checked(response) {
  if (response.ok) return response;
  let message = `the server answered ${response.status}`;
  try {
    message = (await response.json()).error;
  } catch {}
  throw new Error(message);
}

export async function get(path) {
  return (await checked(await answered(fetch(path)))).json();
}

export async function remove(path) {
  await checked(await answered(fetch(path, { method: "DELETE" })));
}

// Asks for a work of the model and returns its result. `report` is called with how it goes.
export async function compute(path, asked, signal, report) {
  const response = await checked(await answered(fetch(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(asked),
    signal,
  })));
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await answered(reader.read());
    if (done) throw new Error(NO_ANSWER);
    text += value;
    const lines = text.split("\n");
    text = lines.pop();
    for (const line of lines) {
      const news = JSON.parse(line);
      if (news.state === "done") return news.result;
      if (news.state === "failed") throw new Error(news.error);
      report(news);
    }
  }
}

// Uploads a file. fetch tells nothing of its progress, so this is an XMLHttpRequest.
export function upload(file, signal, report) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", `/api/videos?name=${encodeURIComponent(file.name)}`);
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.upload.onprogress = (event) => report(event.loaded, event.total);
    request.onload = () => {
      let answer = {};
      try {
        answer = JSON.parse(request.responseText);
      } catch {}
      if (request.status === 201) resolve(answer);
      else reject(new Error(answer.error ?? `the server answered ${request.status}`));
    };
    request.onerror = () => reject(new Error(NO_ANSWER));
    request.onabort = () => reject(new DOMException("cancelled", "AbortError"));
    signal.addEventListener("abort", () => request.abort());
    request.send(file);
  });
}
