/** Drawing text tokens, by the Gumbel-max trick: the argmax of logits / temperature + noise is a draw from the softmax. */

/** @param {import("../bundle/manifest.js").Sampling} sampling */
export function isGreedy({ temperature, top_k: topK }) {
  return temperature === 0 || topK === 1;
}

/**
 * Draw one id from `logits` (vocab,); `banned` is never drawn.
 *
 * @param {Float32Array} logits
 * @param {import("../bundle/manifest.js").Sampling} sampling
 * @param {import("./noise.js").Noise} noise
 * @param {number} [banned]
 */
export function drawToken(logits, sampling, noise, banned) {
  const allowed = logits.slice();
  if (banned !== undefined) allowed[banned] = -Infinity;
  if (isGreedy(sampling)) return argmax(allowed);
  const scores = new Float32Array(logits.length);
  noise.gumbelInto(scores);
  const least = sampling.top_k > 0 && sampling.top_k < logits.length ? allowed.slice().sort().at(-sampling.top_k) : undefined;
  for (let i = 0; i < scores.length; i++) {
    scores[i] = least !== undefined && allowed[i] < least ? -Infinity : scores[i] + allowed[i] / sampling.temperature;
  }
  return argmax(scores);
}

/** @param {Float32Array} numbers */
export function argmax(numbers) {
  let best = 0;
  for (let i = 1; i < numbers.length; i++) if (numbers[i] > numbers[best]) best = i;
  return best;
}
