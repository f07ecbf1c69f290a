/** The parts without a model: the generator of noise, resampling, endpointing, the transform. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { Endpointer } from "../runtime/audio/endpointing.js";
import { Fourier } from "../runtime/audio/fourier.js";
import { SincResampler, joined } from "../runtime/audio/resampler.js";
import { readManifest } from "../runtime/bundle/manifest.js";
import { openTable } from "../runtime/bundle/table.js";
import { Noise } from "../runtime/engine/noise.js";
import { drawToken } from "../runtime/engine/sampling.js";

/** numpy.random.default_rng(seed).random(5, numpy.float32) */
const UNIFORM = JSON.parse(process.env.VOXRILL_UNIFORM ?? "null");

test("the generator is numpy's", { skip: UNIFORM ? false : "python -m pytest tests/web gives numpy's numbers" }, () => {
  for (const { seed, uniform, gumbel } of UNIFORM) {
    const noise = new Noise(seed);
    assert.deepEqual(uniform.map(() => noise.uniform()), uniform);
    const filled = new Float32Array(gumbel.length);
    new Noise(seed).gumbelInto(filled);
    gumbel.forEach((value, i) => assert.ok(Math.abs(filled[i] - value) <= 1e-6 * Math.max(1, Math.abs(value))));
  }
});

/** Tables that Python wrote, with the rows that it reads. */
const TABLES = JSON.parse(process.env.VOXRILL_TABLES ?? "null");

test("tables of few bits have Python's rows", { skip: TABLES ? false : "python -m pytest tests/web gives the tables" }, () => {
  for (const { spec, file, rows } of TABLES) {
    const table = openTable(spec, Uint8Array.from(Buffer.from(file, "base64")));
    rows.forEach((expected, row) => {
      const sum = new Float32Array(table.width);
      table.addTo(row, sum);
      assert.deepEqual([...sum], expected);
    });
  }
});

test("a seed gives the same numbers, another seed others", () => {
  const draw = (seed) => Array.from({ length: 4 }, () => seed.uniform());
  assert.deepEqual(draw(new Noise(7)), draw(new Noise(7)));
  assert.notDeepEqual(draw(new Noise(7)), draw(new Noise(8)));
});

test("draws have the distribution of the softmax, within the best", () => {
  const noise = new Noise(3);
  const logits = Float32Array.of(2, 1, 0, -1);
  const counts = [0, 0, 0, 0];
  for (let i = 0; i < 4000; i++) counts[drawToken(logits, { temperature: 1, top_k: 2 }, noise)] += 1;
  assert.equal(counts[2] + counts[3], 0);
  assert.ok(Math.abs(counts[0] / 4000 - 1 / (1 + Math.exp(-1))) < 0.03);
  assert.equal(drawToken(logits, { temperature: 0, top_k: 0 }, noise, 0), 1);
});

test("the transform is the definition's", () => {
  for (const length of [2, 12, 45, 1280]) {
    const re = Float64Array.from({ length }, (_, i) => Math.sin(i * i));
    const im = Float64Array.from({ length }, (_, i) => Math.cos(3 * i));
    const fourier = new Fourier(length);
    fourier.transform(re, im);
    for (const bin of [0, 1, Math.floor(length / 2), length - 1]) {
      let [sumRe, sumIm] = [0, 0];
      for (let i = 0; i < length; i++) {
        const angle = (-2 * Math.PI * ((bin * i) % length)) / length;
        sumRe += re[i] * Math.cos(angle) - im[i] * Math.sin(angle);
        sumIm += re[i] * Math.sin(angle) + im[i] * Math.cos(angle);
      }
      assert.ok(Math.hypot(fourier.re[bin % length] - sumRe, fourier.im[bin % length] - sumIm) < 1e-8);
    }
  }
});

test("resampling in pieces is resampling whole, and a tone stays a tone", () => {
  const sound = Float32Array.from({ length: 24000 }, (_, i) => Math.sin((2 * Math.PI * 440 * i) / 24000));
  const whole = new SincResampler(24000, 16000);
  const expected = joined([whole.push(sound), whole.rest()]);
  assert.equal(expected.length, 16000);
  const parts = new SincResampler(24000, 16000);
  const pieces = [];
  for (let at = 0; at < sound.length; at += 777) pieces.push(parts.push(sound.subarray(at, at + 777)));
  assert.deepEqual(joined([...pieces, parts.rest()]), expected);
  for (let i = 100; i < 15900; i++) assert.ok(Math.abs(expected[i] - Math.sin((2 * Math.PI * 440 * i) / 16000)) < 2e-3);
});

test("a turn begins, pauses, goes on and ends", () => {
  const endpointer = new Endpointer();
  const heard = (text) => [...text].map((block) => endpointer.hear(block === "x" ? 0.9 : 0.1)).map((d) => d ?? "");
  assert.deepEqual(heard("..x.xx").filter(Boolean), ["began"]);
  assert.equal(endpointer.first, 4);
  assert.deepEqual(heard("xx..x").filter(Boolean), ["paused", "resumed"]);
  assert.deepEqual(heard(".".repeat(14)).filter(Boolean), ["paused", "ended"]);
  assert.deepEqual(heard("x".repeat(1000)).filter(Boolean), ["began", "too long"]);
});

test("a manifest that cannot be run is refused in words", () => {
  const manifest = { format: 2, flavour: "cpu", family: "x", model: { log_mel: { normalize: "none" } } };
  assert.throws(() => readManifest("{"), /not JSON/);
  assert.throws(() => readManifest(JSON.stringify({ ...manifest, format: 9 })), /format 9/);
  assert.throws(() => readManifest(JSON.stringify({ ...manifest, flavour: "npu" })), /flavour npu/);
  assert.throws(() => readManifest(JSON.stringify(manifest)), /family x/);
});
