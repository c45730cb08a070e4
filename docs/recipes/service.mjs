// An agent in Node without any library: one connection to its own daemon, a request and an answer a line.
//
//     backchannel up shouter && node service.mjs shouter
import { readFileSync } from "node:fs";
import { createConnection } from "node:net";
import { homedir } from "node:os";
import { createInterface } from "node:readline";

const name = process.argv[2];
const state = process.env.BACKCHANNEL_STATE ?? `${process.env.XDG_STATE_HOME ?? `${homedir()}/.local/state`}/backchannel`;
const daemon = createConnection(`${readFileSync(`${state}/${name}/lock`, "utf8").trim()}/${name}/control.sock`);
const lines = createInterface({ input: daemon })[Symbol.asyncIterator]();

async function call(method, params) {
  daemon.write(JSON.stringify({ jsonrpc: "2.0", id: 1, method, params }) + "\n");
  const { value, done } = await lines.next();
  const { result, error } = done ? { error: { message: "the daemon has ended" } } : JSON.parse(value);
  if (error) throw new Error(error.message);
  return result;
}

while (true) {
  // Leased for as long as this connection lives: if we die, it is handed out again at once.
  const { messages } = await call("take", { kinds: ["message"], wait: 3600 });
  for (const { id, from, delivery, text } of messages) {
    await call("commit", { replies: [{ id, from, delivery, text: text.toUpperCase() }] });
  }
}
