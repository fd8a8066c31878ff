// The page: chooses and plays videos, asks, searches. Text from outside is set as textContent, never as HTML.

import { compute, get, remove, upload } from "/server.js";
import { Timeline, clock } from "/timeline.js";

const find = (selector, within = document) => within.querySelector(selector);
const player = find("#player");
const choice = find("#video-choice");
const timeline = new Timeline(find("#timeline"), seek);
const SOUND_SECONDS = 5;
const MOST = 60;

let videos = [];
let limits = { upload_bytes: Infinity };
let current = null; // the video shown, with its details
let position = 0; // seconds; the player's, or what was chosen where a video cannot be played
let moments = [];

// One place that shows how a work goes, and its error. A new work of a place ends the one before.
class Task {
  constructor(status, error) {
    this.status = status;
    this.error = error;
    find("button", status).addEventListener("click", () => this.abort?.abort());
  }

  async run(work) {
    this.abort?.abort();
    const abort = (this.abort = new AbortController());
    this.error.hidden = true;
    try {
      await work(abort.signal);
    } catch (error) {
      if (error.name !== "AbortError" && this.abort === abort) show(this.error, error.message);
    } finally {
      if (this.abort === abort) this.status.hidden = true;
    }
  }

  report(text, done = 0, total = 0) {
    this.status.hidden = false;
    const shown = find("span", this.status);
    if (shown.textContent !== text) shown.textContent = text;
    const bar = find("progress", this.status);
    if (total) [bar.max, bar.value] = [total, done];
    else bar.removeAttribute("value");
  }

  // For `compute`: what the server says of a work called `name`.
  reporter(name) {
    return (news) => {
      if (!news.ahead) this.report(`${name} …`, news.done, news.total);
      else this.report(news.ahead === 1 ? "Waiting for 1 request before this" : `Waiting for ${news.ahead} requests before this`);
    };
  }
}

const uploading = new Task(find("#upload-status"), find("#video-error"));
const asking = new Task(find("#ask .status"), find("#ask .error"));
const searching = new Task(find("#search .status"), find("#search .error"));

function show(element, text) {
  element.textContent = text;
  element.hidden = !text;
}

function element(tag, className, text) {
  const made = document.createElement(tag);
  made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

async function listVideos(chosen) {
  limits = await get("/api/videos");
  videos = limits.videos;
  const options = videos.map((video) => new Option(video.name, video.id));
  if (!videos.length) options.push(new Option("no video yet: upload one", ""));
  choice.replaceChildren(...options);
  choice.disabled = !videos.length;
  find("#file").accept = limits.endings.join(",");
  await open(videos.find((video) => video.id === chosen) ?? videos[0] ?? null);
}

async function open(video) {
  choice.value = video?.id ?? "";
  current = video;
  show(find("#video-error"), "");
  show(find("#video-note"), "");
  show(asking.error, "");
  asking.abort?.abort();
  find("#answers-found").replaceChildren();
  find("#delete").hidden = !video?.uploaded;
  for (const button of document.querySelectorAll("button.main")) button.disabled = !video;
  player.pause();
  player.hidden = true;
  timeline.show(0);
  move(0);
  if (!video) {
    player.removeAttribute("src");
    player.load();
    return;
  }
  try {
    const details = await get(`/api/videos/${video.id}`);
    if (current !== video) return; // another one was chosen meanwhile
    Object.assign(video, details);
  } catch (error) {
    if (current === video) show(find("#video-error"), error.message);
    return;
  }
  if (video.is_cut) show(find("#video-note"), cutNote(video));
  if (video.unplayable) cannotPlay(video.unplayable);
  else {
    player.src = `/media/${video.id}`;
    player.hidden = false;
  }
  timeline.show(video.seconds);
  showMoments();
  move(0);
}

function cutNote(video) {
  return `Only its first ${clock(video.seconds)} are asked and searched, and shown on the time line.`;
}

function cannotPlay(reason) {
  player.hidden = true;
  player.removeAttribute("src");
  player.load();
  show(find("#video-note"), `It cannot be played here: ${reason}. You can still ask and search it.${current?.is_cut ? ` ${cutNote(current)}` : ""}`);
}

function move(seconds) {
  position = seconds;
  timeline.move(seconds);
  const button = find("#by-sound");
  button.textContent = `Find sounds like the ${SOUND_SECONDS} s at ${clock(soundStart())}`;
  button.disabled = !current?.has_sound;
}

function soundStart() {
  return Math.max(0, Math.min(position, (current?.seconds ?? 0) - SOUND_SECONDS));
}

function seek(seconds) {
  move(seconds);
  if (player.hidden) return;
  player.scrollIntoView({ block: "nearest" }); // on a narrow page the list is far below
  player.currentTime = seconds;
  player.play().catch(() => {}); // a browser may want a gesture first; the place is shown all the same
}

async function playMoment(moment) {
  if (moment.video !== current?.id) {
    const video = videos.find((other) => other.id === moment.video);
    if (!video) return;
    await open(video);
  }
  seek(moment.start);
}

function showMoments() {
  const here = moments.filter((moment) => moment.video === current?.id);
  timeline.showMoments(here, moments);
  find("#legend").hidden = !here.length && !find("#answers-found").children.length;
}

function row(text, number, place, share, onClick) {
  const button = element("button", "");
  button.type = "button";
  const fill = element("span", "fill");
  fill.style.width = `${100 * share}%`;
  const line = element("span", "line");
  line.append(element("span", "text", text), element("span", "number", number));
  button.append(fill, line, element("span", "place", place));
  button.addEventListener("click", onClick);
  const item = document.createElement("li");
  item.append(button);
  return item;
}

find("#ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const video = current;
  const seconds = (name) => (find(name).value === "" ? null : Number(find(name).value));
  asking.run(async (signal) => {
    const list = find("#answers-found");
    list.replaceChildren();
    timeline.showAnswers([]);
    asking.report("Sending …");
    const found = await compute(`/api/videos/${video.id}/ask`, {
      question: find("#question").value,
      answers: find("#answers").value.split("\n"),
      start: seconds("#from"),
      stop: seconds("#to"),
    }, signal, asking.reporter("Watching and listening"));
    if (current !== video) return;
    list.replaceChildren(...found.answers.map((answer) => row(
      answer.text, `${(100 * answer.probability).toFixed(1)} %`,
      `fits best at ${clock(answer.start)} – ${clock(answer.end)}${answer.read === null ? "" : `; only “${answer.read}” was read`}`, answer.probability, () => seek(answer.start),
    )));
    const senses = found.heard ? "seen and heard" : "seen without sound";
    list.append(element("li", "hint", `The model read: “${found.statement.replace(/\s*<\|MASK\|>/, " ___")}” (${senses})`));
    timeline.showAnswers(found.answers.slice(0, 1));
    find("#legend").hidden = false;
  });
});

// Searches for `wanted`, {text} or {sound}; makes the indexes that are missing, each as a work of its own. A search of all
// videos leaves out those that cannot be read.
function search(wanted) {
  const all = find("#scope").value === "all";
  const searched = all ? [...videos] : [current];
  searching.run(async (signal) => {
    const list = find("#moments-found");
    moments = [];
    list.replaceChildren();
    showMoments();
    searching.report("Sending …");
    const indexed = new Set((await get("/api/videos")).videos.filter((video) => video.indexed).map((video) => video.id));
    const missing = searched.filter((video) => !indexed.has(video.id));
    const leftOut = [];
    for (const [number, video] of missing.entries()) {
      const name = missing.length > 1 ? `Reading ${video.name}, ${number + 1} of ${missing.length}` : `Reading ${video.name}`;
      try {
        await compute(`/api/videos/${video.id}/index`, {}, signal, searching.reporter(name));
      } catch (error) {
        if (!all || error.name === "AbortError") throw error;
        leftOut.push(error.message.includes(video.name) ? error.message : `${video.name}: ${error.message}`);
      }
    }
    if (leftOut.length) show(searching.error, `Left out: ${leftOut.join("; ")}`);
    const asked = { ...wanted, videos: all ? "all" : searched.map((video) => video.id), most: MOST };
    moments = (await compute("/api/search", asked, signal, searching.reporter("Searching")))
      .filter((moment) => searched.some((video) => video.id === moment.video)); // others were added meanwhile
    const [high, low] = [moments[0]?.score, moments.at(-1)?.score];
    list.replaceChildren(...moments.map((moment) => row(
      clock(moment.start), moment.score.toFixed(3),
      searched.length > 1 ? videos.find((video) => video.id === moment.video)?.name ?? "" : "",
      high > low ? (moment.score - low) / (high - low) : 1, () => playMoment(moment),
    )));
    if (!moments.length) list.replaceChildren(element("li", "", "nothing found"));
    showMoments();
  });
}

find("#search").addEventListener("submit", (event) => {
  event.preventDefault();
  search({ text: find("#text").value });
});

find("#by-sound").addEventListener("click", () => {
  const start = soundStart();
  search({ sound: { video: current.id, start, stop: Math.min(start + SOUND_SECONDS, current.seconds) } });
});

find("#file").addEventListener("change", () => {
  const file = find("#file").files[0];
  find("#file").value = ""; // so that the same file can be chosen again
  if (!file) return;
  uploading.run(async (signal) => {
    if (file.size > limits.upload_bytes) {
      throw new Error(`${file.name} is larger than ${Math.floor(limits.upload_bytes / 2 ** 20)} MB, the most for one upload`);
    }
    const video = await upload(file, signal, (done, total) => {
      uploading.report(done < total ? `Uploading ${file.name} …` : `Checking ${file.name} …`, done, total);
    });
    await listVideos(video.id);
  });
});

find("#delete").addEventListener("click", () => {
  if (!confirm(`Delete ${current.name} from the server?`)) return;
  uploading.run(async () => {
    await remove(`/api/videos/${current.id}`);
    moments = moments.filter((moment) => moment.video !== current.id);
    await listVideos();
  });
});

choice.addEventListener("change", () => open(videos.find((video) => video.id === choice.value)));
player.addEventListener("timeupdate", () => move(player.currentTime));
player.addEventListener("seeking", () => move(player.currentTime));
player.addEventListener("error", () => {
  if (player.getAttribute("src")) cannotPlay("this browser does not know its format");
});

listVideos().catch((error) => show(find("#video-error"), error.message));
