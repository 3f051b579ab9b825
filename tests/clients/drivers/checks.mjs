// What the Node drivers share; see checks.py, whose arguments and output are the same.

import { z } from "zod";

export const [BASE_URL, API_KEY, MODEL] = process.argv.slice(2, 5);
const ONLY = new Set(process.argv.slice(6)); // after `--only`

export const QUESTION = "What is the capital of France?";
export const WEATHER_QUESTION = "What is the weather in Bonn?";
export const TICKET_QUESTION =
  "Sort this ticket: the screen of my tablet is broken since this morning. Answer in JSON.";

export const Ticket = z.object({
  category: z.enum(["hardware", "billing", "other"]),
  urgent: z.boolean(),
});

export const getWeather = ({ city }) => `It is sunny in ${city}, with 21 degrees.`;

export const GET_WEATHER = {
  name: "get_weather",
  description: "Get the weather of a city.",
  parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
};

export function assert(condition, detail = "") {
  if (!condition) throw new Error(`not as expected: ${JSON.stringify(detail)}`);
}

// Runs the checks of one API, one after another, and prints the outcome of each.
export async function main(api, checks) {
  for (const [check, run] of Object.entries(checks)) {
    if (ONLY.size && !ONLY.has(`${api}.${check}`)) continue;
    const began = performance.now();
    let detail = "";
    try {
      await run();
    } catch (error) {
      detail = `${error.name}: ${error.message}`.slice(0, 2000);
      console.error(error);
    }
    const seconds = Math.round((performance.now() - began) / 10) / 100;
    console.log(JSON.stringify({ api, check, ok: !detail, detail, seconds }));
  }
}
