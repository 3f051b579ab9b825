// The client `openai` for Node: chat completions and responses.

import OpenAI from "openai";
import { zodFunction, zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import {
  API_KEY,
  BASE_URL,
  GET_WEATHER,
  MODEL,
  QUESTION,
  TICKET_QUESTION,
  Ticket,
  WEATHER_QUESTION,
  assert,
  getWeather,
  main,
} from "./checks.mjs";

const client = new OpenAI({ baseURL: BASE_URL, apiKey: API_KEY });
const model = MODEL;
const hello = () => [{ role: "user", content: QUESTION }];
const then = { role: "user", content: "And of Italy?" };

const tools = [{ type: "function", function: GET_WEATHER }];

function answerCalls(messages, message) {
  assert(message.tool_calls?.length, message);
  messages.push(message);
  for (const call of message.tool_calls) {
    const content = getWeather(JSON.parse(call.function.arguments));
    messages.push({ role: "tool", tool_call_id: call.id, content });
  }
}

await main("Chat", {
  async turn() {
    const completion = await client.chat.completions.create({ model, messages: hello() });
    assert(completion.choices[0].message.content);
  },
  async history_object() {
    const messages = hello();
    const completion = await client.chat.completions.create({ model, messages });
    messages.push(completion.choices[0].message, then);
    const second = await client.chat.completions.create({ model, messages });
    assert(second.choices[0].message.content);
  },
  async history_dump() {
    const messages = hello();
    const completion = await client.chat.completions.create({ model, messages });
    messages.push(JSON.parse(JSON.stringify(completion.choices[0].message)), then);
    const second = await client.chat.completions.create({ model, messages });
    assert(second.choices[0].message.content);
  },
  async settings() {
    const completion = await client.chat.completions.create({
      model,
      messages: [
        { role: "developer", content: "Be brief." },
        { role: "user", content: [{ type: "text", text: QUESTION }] },
      ],
      temperature: 0.7,
      top_p: 0.9,
      max_completion_tokens: 16,
      n: 2,
      seed: 7,
      stop: ["\n"],
      presence_penalty: 0,
      frequency_penalty: 0,
      logprobs: true,
      top_logprobs: 2,
      logit_bias: {},
      user: "customer-17",
      safety_identifier: "customer-17",
      metadata: { page: "help" },
      store: false,
      service_tier: "auto",
      prompt_cache_key: "help",
      verbosity: "low",
      modalities: ["text"],
    });
    assert(completion.choices.length === 2 && completion.choices[0].logprobs, completion);
  },
  async stream() {
    const messages = hello();
    const stream = await client.chat.completions.create({ model, messages, stream: true });
    let text = "";
    for await (const chunk of stream) text += chunk.choices[0]?.delta?.content || "";
    assert(text);
  },
  async tool_turn() {
    const messages = [{ role: "user", content: WEATHER_QUESTION }];
    const completion = await client.chat.completions.create({ model, messages, tools });
    answerCalls(messages, completion.choices[0].message);
    const answer = await client.chat.completions.create({ model, messages, tools });
    assert(answer.choices[0].message.content);
  },
  async tool_stream() {
    // The helper streams, calls the function and sends its result back until there is an answer.
    const asked = [];
    const answer = (input) => (asked.push(input), getWeather(input));
    const runner = client.chat.completions.runTools({
      model,
      messages: [{ role: "user", content: WEATHER_QUESTION }],
      stream: true,
      tools: [
        { type: "function", function: { ...GET_WEATHER, parse: JSON.parse, function: answer } },
      ],
    });
    assert(await runner.finalContent());
    assert(asked.length, "the tool was not called");
  },
  async structured() {
    const completion = await client.chat.completions.parse({
      model,
      messages: [{ role: "user", content: TICKET_QUESTION }],
      response_format: zodResponseFormat(Ticket, "ticket"),
    });
    assert(completion.choices[0].message.parsed?.category, completion);
  },
  async structured_tools() {
    const completion = await client.chat.completions.parse({
      model,
      messages: [{ role: "user", content: TICKET_QUESTION }],
      tools: [zodFunction({ name: "ticket", parameters: Ticket })],
      tool_choice: "required",
    });
    const [call] = completion.choices[0].message.tool_calls ?? [];
    assert(call?.function.parsed_arguments?.category, completion);
  },
});

const functions = [{ type: "function", ...GET_WEATHER, strict: false }];

function answerItems(items, response) {
  items.push(...response.output);
  const calls = response.output.filter((item) => item.type === "function_call");
  assert(calls.length, response);
  for (const { call_id, arguments: text } of calls) {
    items.push({ type: "function_call_output", call_id, output: getWeather(JSON.parse(text)) });
  }
}

await main("Responses", {
  async turn() {
    const instructions = "Be brief.";
    const response = await client.responses.create({ model, instructions, input: QUESTION });
    assert(response.output_text);
  },
  async history_object() {
    const input = hello();
    const response = await client.responses.create({ model, input });
    input.push(...response.output, then);
    assert((await client.responses.create({ model, input })).output_text);
  },
  async history_dump() {
    const input = hello();
    const response = await client.responses.create({ model, input });
    input.push(...JSON.parse(JSON.stringify(response.output)), then);
    assert((await client.responses.create({ model, input })).output_text);
  },
  async settings() {
    const response = await client.responses.create({
      model,
      input: QUESTION,
      temperature: 0,
      top_p: 0.9,
      max_output_tokens: 16,
      user: "customer-17",
      safety_identifier: "customer-17",
      metadata: { page: "help" },
      store: false,
      service_tier: "auto",
      prompt_cache_key: "help",
      truncation: "auto",
      parallel_tool_calls: true,
      text: { verbosity: "low" },
    });
    assert(response.output_text, response);
  },
  async stream() {
    const stream = await client.responses.create({ model, input: QUESTION, stream: true });
    let text = "";
    for await (const event of stream) {
      if (event.type === "response.output_text.delta") text += event.delta;
    }
    assert(text);
  },
  async tool_turn() {
    const input = [{ role: "user", content: WEATHER_QUESTION }];
    answerItems(input, await client.responses.create({ model, input, tools: functions }));
    const answer = await client.responses.create({ model, input, tools: functions });
    assert(answer.output_text);
  },
  async tool_stream() {
    const input = [{ role: "user", content: WEATHER_QUESTION }];
    const stream = client.responses.stream({ model, input, tools: functions });
    answerItems(input, await stream.finalResponse());
    const answer = client.responses.stream({ model, input, tools: functions });
    assert((await answer.finalResponse()).output_text);
  },
  async structured() {
    const response = await client.responses.parse({
      model,
      input: TICKET_QUESTION,
      text: { format: zodTextFormat(Ticket, "ticket") },
    });
    assert(response.output_parsed?.category, response);
  },
});
