/** The latencies of this page's answers, and what is said of them. */

export class Latencies {
  constructor() {
    this.clear();
  }

  clear() {
    this.seconds = [];
  }

  add(seconds) {
    this.seconds.push(seconds);
  }

  /** Their median, and of how many answers. */
  get text() {
    const { length } = this.seconds;
    if (!length) return "No answer yet";
    return `Median ${median(this.seconds).toFixed(2)} s of ${length} ${length === 1 ? "answer" : "answers"}`;
  }
}

function median(numbers) {
  const sorted = numbers.toSorted((a, b) => a - b);
  const half = sorted.length / 2;
  return (sorted[Math.ceil(half) - 1] + sorted[Math.floor(half)]) / 2;
}
