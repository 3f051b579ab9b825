// The Vercel AI SDK: by `@ai-sdk/openai-compatible`, and by `@ai-sdk/openai` with either API.

import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { Output, generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";
import {
  API_KEY,
  BASE_URL,
  MODEL,
  QUESTION,
  TICKET_QUESTION,
  Ticket,
  WEATHER_QUESTION,
  assert,
  getWeather,
  main,
} from "./checks.mjs";

const hello = { role: "user", content: QUESTION };
const then = { role: "user", content: "And of Italy?" };

// `common` goes into every call: the model, and the SDK's settings for its provider.
function checksOf(common) {
  const toolTurn = (asked) => ({
    ...common,
    tools: {
      weather: tool({
        description: "Get the weather of a city.",
        inputSchema: z.object({ city: z.string() }),
        execute: async (input) => (asked.push(input), getWeather(input)),
      }),
    },
    stopWhen: stepCountIs(5),
    prompt: WEATHER_QUESTION,
  });
  return {
    async turn() {
      assert((await generateText({ ...common, prompt: QUESTION })).text);
    },
    async history_object() {
      const first = await generateText({ ...common, messages: [hello] });
      const messages = [hello, ...first.response.messages, then];
      assert((await generateText({ ...common, messages })).text);
    },
    async history_dump() {
      const first = await generateText({ ...common, messages: [hello] });
      const dumped = JSON.parse(JSON.stringify(first.response.messages));
      const messages = [hello, ...dumped, then];
      assert((await generateText({ ...common, messages })).text);
    },
    async settings() {
      const user = "customer-17";
      const result = await generateText({
        ...common,
        system: "Be brief.",
        prompt: QUESTION,
        temperature: 0,
        topP: 0.9,
        maxOutputTokens: 16,
        seed: 7,
        stopSequences: ["\n"],
        presencePenalty: 0,
        frequencyPenalty: 0,
        providerOptions: {
          whet: { user },
          openai: { ...common.providerOptions?.openai, user, metadata: { page: "help" } },
        },
      });
      assert(result.text);
    },
    async stream() {
      const result = streamText({ ...common, prompt: QUESTION });
      let text = "";
      for await (const part of result.textStream) text += part;
      assert(text);
      assert((await result.usage).outputTokens, "no usage");
    },
    async tool_turn() {
      const asked = [];
      const { text } = await generateText(toolTurn(asked));
      assert(asked.length && text, { asked, text });
    },
    async tool_stream() {
      const asked = [];
      let text = "";
      for await (const part of streamText(toolTurn(asked)).textStream) text += part;
      assert(asked.length && text, { asked, text });
    },
    async structured() {
      const { output } = await generateText({
        ...common,
        output: Output.object({ schema: Ticket }),
        prompt: TICKET_QUESTION,
      });
      assert(output.category, output);
    },
  };
}

const compatible = createOpenAICompatible({
  name: "whet",
  baseURL: BASE_URL,
  apiKey: API_KEY,
  includeUsage: true,
  supportsStructuredOutputs: true,
});
const openai = createOpenAI({ baseURL: BASE_URL, apiKey: API_KEY });

await main("Compatible", checksOf({ model: compatible(MODEL) }));
await main("Chat", checksOf({ model: openai.chat(MODEL) }));
// By default the SDK's Responses mode refers to earlier answers as stored ones
// (`item_reference`). Nothing is stored here, which this setting of the SDK says.
const providerOptions = { openai: { store: false } };
await main("Responses", checksOf({ model: openai(MODEL), providerOptions }));
