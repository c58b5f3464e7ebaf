// Speech as a microphone gives it, for the clients beside this file.
//
// Of its `task` it takes `frameBytes`, `bytesPerSecond` and `speed`, and optionally `amid`: at that byte, within an
// utterance, hardly anything more is sent until `came()` is true, as in `live.mid_speech` and for its reasons.
import { setTimeout as sleep } from "node:timers/promises";

const CRUMB_BYTES = 32;
const CRUMB_EVERY_MS = 50;

export async function* speech(audio, task, came) {
  let started = performance.now();
  let amid = task.amid ?? audio.length;
  for (let at = 0; at < audio.length; ) {
    const early = started + ((at / task.bytesPerSecond) * 1000) / task.speed - performance.now();
    await sleep(Math.max(0, early));
    const waits = at >= amid && !came();
    const size = waits ? CRUMB_BYTES : Math.min(task.frameBytes, at < amid ? amid - at : task.frameBytes);
    yield audio.subarray(at, at + size);
    at += size;
    if (waits) {
      amid = at;
      await sleep(CRUMB_EVERY_MS);
      started += CRUMB_EVERY_MS;
    }
  }
}
