// A session with the official JavaScript SDK, as one JSON argument orders it; prints what it saw as JSON.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const order = JSON.parse(process.argv[2]);
const { GladiaClient } = createRequire(import.meta.url)(order.sdk);
const audio = readFileSync(order.audio);
const session = new GladiaClient({ apiUrl: order.url, apiKey: "none", wsTimeout: order.timeoutMs }).liveV2().startSession(order.request);

const messages = [];
let acked = 0;
let code = null;
session.on("message", (message) => {
  if (message.type === "audio_chunk" && message.acknowledged) acked = Math.max(acked, message.data.byte_range[1]);
  if (message.type === "audio_chunk" || message.type === "transcript") messages.push(message);
});
session.on("ended", (end) => (code = end.code));

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const id = await session.getSessionId();
for (let at = 0; at < audio.length; at += order.chunk) {
  session.sendAudio(audio.subarray(at, at + order.chunk));
  await sleep(order.everyMs);
}
let stoppedAt = 0;
while (code === null) {
  // A stop that is lost with its socket is not repeated by the SDK.
  if (acked >= audio.length && session.status === "connected" && Date.now() - stoppedAt > 2000) {
    stoppedAt = Date.now();
    session.stopRecording();
  }
  await sleep(20);
}
console.log(JSON.stringify({ id, messages, code }));
