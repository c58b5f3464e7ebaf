// One session with the official SDK, as its user would write it; what it told is printed as one line of JSON.
//
// Argument: JSON with `url` and `pcm` (a file), what `speech` takes, `options` for the session, and optionally `join`
// ({id, url} of a session that somebody else created) or `end` (true: leave without stopping).
import { readFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { GladiaClient } from "@gladiaio/sdk";
import { speech } from "./speech.mjs";

const task = JSON.parse(process.argv[2]);
const live = new GladiaClient({ apiKey: "any", apiUrl: task.url }).liveV2();
const story = { steps: [], messages: [], errors: [] };

const session = task.join
  ? live.connectSession({ ...task.join, messages_config: task.options.messages_config })
  : live.startSession(task.options);
for (const step of ["started", "connecting", "connected", "ending"]) session.on(step, () => story.steps.push(step));
session.on("message", (message) => story.messages.push(message));
session.on("error", (error) => story.errors.push(String(error)));
const ended = new Promise((resolve) => session.once("ended", resolve));
const connected = new Promise((resolve) => session.once("connected", resolve));

story.id = await session.getSessionId();
await connected;
const pcm = await readFile(task.pcm);
const isPartial = (message) => message.type === "transcript" && !message.data.is_final;
for await (const piece of speech(pcm, task, () => story.messages.some(isPartial))) session.sendAudio(piece);
if (task.end) {
  while (!story.messages.some((each) => each.type === "audio_chunk" && each.data.byte_range[1] >= pcm.length)) await sleep(10);
  session.endSession();
} else {
  session.stopRecording();
}
story.end = await ended;
story.steps.push("ended");

if (!task.join && !task.end) {
  story.stored = await live.get(story.id);
  story.file = Buffer.from(await live.getFile(story.id)).toString("base64");
  const wanted = { custom_metadata: task.options.custom_metadata, status: ["done"], limit: 1 };
  story.listed = await live.list(wanted);
  story.deleted = await live.delete(story.id);
  story.after = (await live.list(wanted)).items.length;
  story.gone = [];
  for (const method of ["get", "getFile", "delete"]) {
    story.gone.push(await live[method](story.id).then(() => "still there", (error) => error.status));
  }
}
process.stdout.write(JSON.stringify(story) + "\n", () => process.exit(0));
