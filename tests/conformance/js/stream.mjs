// A client of the simple stream, written from the fields of its messages; what it heard is printed as one line of JSON.
//
// Argument: JSON with `url` (ws://…/audio/stream), `key`, `config`, `audio` (a file) and what `speech` takes.
// Where `config` has no key in it the client sends `key` as a header.
import { readFile } from "node:fs/promises";
import WebSocket from "ws";
import { speech } from "./speech.mjs";

const task = JSON.parse(process.argv[2]);
const story = { transcripts: [], errors: [], others: [] };

const headers = "x_gladia_key" in task.config ? {} : { "x-gladia-key": task.key };
const socket = new WebSocket(task.url, { headers });
const closed = new Promise((resolve) => socket.on("close", (code) => resolve(code)));

socket.on("message", (data, isBinary) => {
  const message = JSON.parse(data.toString());
  if (!isBinary && message.type === "transcript") {
    const { text, is_final, start_time, end_time, speaker } = message;
    story.transcripts.push({ text, is_final, start_time, end_time, speaker });
  } else if (!isBinary && message.type === "error") {
    story.errors.push({ code: message.code, message: message.message });
  } else {
    story.others.push(message);
  }
});
socket.on("open", async () => {
  socket.send(JSON.stringify({ type: "config", ...task.config }));
  const audio = await readFile(task.audio);
  for await (const piece of speech(audio, task, () => story.transcripts.some((each) => !each.is_final))) {
    if (socket.readyState !== WebSocket.OPEN) break;
    socket.send(piece);
  }
  if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ type: "end_of_stream" }));
});

story.code = await closed;
process.stdout.write(JSON.stringify(story) + "\n");
