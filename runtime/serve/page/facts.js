/** The facts of device and bundle, as a list in the page. */

import { element } from "./transcript.js";

/** The digest that distinguishes processors of the same name. It is for machines. */
const DIGEST = /, [0-9a-f]{16}$/;

/** Show the answer of /v1/device in a definition list. */
export function showFacts(list, device) {
  const lines = {
    Bundle: `${device.bundle} (${device.family})`,
    Weights: device.source,
    Precision: each(device.precision),
    Size: `${(device.bytes / 1e6).toFixed(0)} MB`,
    Processor: device.processor.replace(DIGEST, ""),
    Threads: `${device.threads} of ${device.cores} cores`,
    Provider: each(device.provider),
    onnxruntime: device.onnxruntime,
    Sessions: `${device.sessions.most} at once`,
  };
  list.replaceChildren(
    ...Object.entries(lines).flatMap(([name, value]) => [element("dt", "", name), element("dd", "", value)]),
  );
}

/** The one value that all graphs have; otherwise each value with the number of its graphs. */
function each(byGraph) {
  const counts = new Map();
  for (const value of Object.values(byGraph)) counts.set(value, (counts.get(value) ?? 0) + 1);
  if (counts.size === 1) return [...counts.keys()][0];
  return [...counts].map(([value, count]) => `${value} (${count} graphs)`).join(", ");
}
