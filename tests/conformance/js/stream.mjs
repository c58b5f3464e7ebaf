// A client of the simple stream, written from the fields of its messages; what it heard is printed as one line of JSON.
//
// Argument: JSON with `url` (ws://…/audio/stream), `key`, `config`, `audio` (a file), `frameBytes`, `bytesPerSecond` and
// `speed`. Where `config` has no key in it the client sends `key` as a header.
import { readFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import WebSocket from "ws";

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
  const started = performance.now();
  for (let at = 0; at < audio.length && socket.readyState === WebSocket.OPEN; at += task.frameBytes) {
    await sleep(Math.max(0, started + ((at / task.bytesPerSecond) * 1000) / task.speed - performance.now()));
    socket.send(audio.subarray(at, at + task.frameBytes));
  }
  if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ type: "end_of_stream" }));
});

story.code = await closed;
process.stdout.write(JSON.stringify(story) + "\n");
