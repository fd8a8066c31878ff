// A time line under the video: bars where moments were found, spans where answers fit best, and the playhead.

const LABELS = 6;
const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600];

export function clock(seconds) {
  const whole = Math.floor(seconds);
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const short = `${minutes}:${String(rest).padStart(2, "0")}`;
  return hours ? `${hours}:${short.padStart(5, "0")}` : short;
}

export class Timeline {
  // `onSeek` is called with the seconds that were chosen.
  constructor(element, onSeek) {
    this.element = element;
    this.onSeek = onSeek;
    this.duration = 0;
    this.moments = element.querySelector('[data-track="moments"]');
    this.answers = element.querySelector('[data-track="answers"]');
    this.playhead = element.querySelector(".playhead");
    for (const track of [this.moments, this.answers]) {
      track.addEventListener("click", (event) => {
        if (event.target !== track) return;
        const box = track.getBoundingClientRect();
        this.onSeek(((event.clientX - box.left) / box.width) * this.duration);
      });
    }
  }

  show(duration) {
    this.duration = duration;
    this.element.hidden = !(duration > 0);
    this.moments.replaceChildren();
    this.answers.replaceChildren();
    this.answers.hidden = true;
    const step = STEPS.find((seconds) => duration / seconds <= LABELS) ?? STEPS.at(-1);
    const labels = [];
    for (let time = 0; time <= duration - step * 0.4; time += step) labels.push(this.#label(time));
    labels.push(this.#label(duration));
    labels.at(-1).className = "last";
    this.element.querySelector(".axis").replaceChildren(...labels);
    this.move(0);
  }

  move(seconds) {
    this.playhead.style.left = this.#share(Math.min(seconds, this.duration));
  }

  // `moments` have start, end and score; the lowest bar is that of the least similar of `all` that were found.
  showMoments(moments, all) {
    const scores = all.map((moment) => moment.score);
    const [low, high] = [Math.min(...scores), Math.max(...scores)];
    const inOrder = [...moments].sort((one, other) => one.start - other.start);
    this.moments.replaceChildren(...inOrder.map((moment) => {
      const similarity = high > low ? (moment.score - low) / (high - low) : 1;
      const label = `Play ${clock(moment.start)}, similarity ${moment.score.toFixed(3)}`;
      const bar = this.#bar("moment", moment, label);
      bar.style.height = `${20 + 80 * similarity}%`;
      return bar;
    }));
  }

  // `answers` have text, start and end.
  showAnswers(answers) {
    this.answers.hidden = !answers.length;
    this.answers.replaceChildren(...answers.map((answer) => {
      const label = `Play ${clock(answer.start)}, where “${answer.text}” fits best`;
      const bar = this.#bar("answer", answer, label);
      bar.textContent = answer.text;
      return bar;
    }));
  }

  #bar(kind, span, label) {
    const bar = document.createElement("button");
    bar.type = "button";
    bar.className = kind;
    bar.title = label;
    bar.setAttribute("aria-label", label);
    bar.style.left = `min(${this.#share(span.start)}, 100% - 5px)`; // its least width
    bar.style.width = this.#share(span.end - span.start);
    bar.addEventListener("click", () => {
      for (const other of this.element.querySelectorAll(".chosen")) other.classList.remove("chosen");
      bar.classList.add("chosen");
      this.onSeek(span.start);
    });
    return bar;
  }

  #label(time) {
    const label = document.createElement("span");
    label.textContent = clock(time);
    label.style.left = this.#share(time);
    return label;
  }

  #share(seconds) {
    return `${this.duration ? (100 * seconds) / this.duration : 0}%`;
  }
}
