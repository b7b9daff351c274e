// Asks for a form in each of the ways that its argument lists, and prints what each client raises.
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { ChatOpenAI } from "@langchain/openai";
import { Output, generateText } from "ai";
import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

const addresses = { free: "http://localhost:8080/v1", full: "http://localhost:8081/v1" };
const schema = z.object({ name: z.string(), age: z.number() });

const clients = {
  async openai(baseURL, apiKey, content, limit) {
    const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
    await client.chat.completions.parse({
      model: "any",
      messages: [{ role: "user", content }],
      response_format: zodResponseFormat(schema, "person"),
      max_tokens: limit,
    });
  },
  async ai(baseURL, apiKey, prompt, limit) {
    const options = { name: "kindling", baseURL, apiKey, supportsStructuredOutputs: true };
    await generateText({
      model: createOpenAICompatible(options)("any"),
      prompt,
      output: Output.object({ schema }),
      maxOutputTokens: limit,
      maxRetries: 0,
    });
  },
  async langchain(baseURL, apiKey, prompt, limit) {
    const options = { apiKey, configuration: { baseURL }, maxTokens: limit, maxRetries: 0 };
    const model = new ChatOpenAI({ model: "any", ...options });
    await model.withStructuredOutput(schema).invoke(prompt);
  },
};

async function raisedBy(ask, { server, key, prompt, limit }) {
  return ask(addresses[server], key, prompt, limit).then(
    () => "nothing",
    (error) => [error.constructor.name, error.statusCode].filter(Boolean).join(" "),
  );
}

const raised = {};
for (const [name, ask] of Object.entries(clients)) {
  raised[name] = [];
  for (const way of JSON.parse(process.argv[2])) raised[name].push(await raisedBy(ask, way));
}
console.log(JSON.stringify(raised));
