// Node's http, which knows no proxy by itself: absolute targets by hand, as the usual agents send them.
const http = require("http");
const tls = require("tls");
const crypto = require("crypto");

const proxy = new URL(process.argv[2]);
const web = "http://web";
const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });

function send(url, { method = "GET", pieces = [], headers = {} } = {}) {
  return new Promise((resolve, reject) => {
    const host = new URL(url).host;
    const request = http.request({
      agent, host: proxy.hostname, port: proxy.port, method, path: url, headers: { Host: host, ...headers }, timeout: 20000,
    });
    request.on("response", (response) => {
      const body = [];
      response.on("data", (piece) => body.push(piece));
      response.on("error", reject);
      response.on("end", () => resolve({
        status: response.statusCode, headers: response.headers, body: Buffer.concat(body), reused: request.reusedSocket,
      }));
    });
    request.on("timeout", () => request.destroy(new Error("no answer within 20 s")));
    request.on("error", reject);
    for (const piece of pieces) request.write(piece);
    request.end();
  });
}

function connect(authority) {
  return new Promise((resolve, reject) => {
    const request = http.request({
      agent: false, host: proxy.hostname, port: proxy.port, method: "CONNECT", path: authority, headers: { Host: authority }, timeout: 20000,
    });
    request.on("connect", (response, socket) => {
      socket.destroy();
      resolve(response);
    });
    request.on("timeout", () => request.destroy(new Error("no answer within 20 s")));
    request.on("error", reject);
    request.end();
  });
}

/** A request to an https address, through a tunnel. */
function tunnelled(authority, path) {
  return new Promise((resolve, reject) => {
    const request = http.request({ agent: false, host: proxy.hostname, port: proxy.port, method: "CONNECT", path: authority, timeout: 20000 });
    request.on("connect", (response, socket) => {
      if (response.statusCode !== 200) return reject(new Error(`CONNECT was answered ${response.statusCode}`));
      const host = authority.split(":")[0];
      const secure = http.get({ host, path, headers: { Connection: "close" }, createConnection: () => tls.connect({ socket, servername: host }) }, (answer) => {
        const body = [];
        answer.on("data", (piece) => body.push(piece));
        answer.on("end", () => resolve(`${answer.statusCode} ${Buffer.concat(body)}`));
      });
      secure.on("error", reject);
    });
    request.on("timeout", () => request.destroy(new Error("no answer within 20 s")));
    request.on("error", reject);
    request.end();
  });
}

async function check(name, wanted, run) {
  try {
    const found = await run();
    console.log(found === wanted ? `pass ${name}` : `fail ${name}: found ${found.slice(0, 300)}, wanted ${wanted}`);
  } catch (error) {
    console.log(`fail ${name}: ${error}`);
  }
}

const text = ({ status, body }) => `${status} ${body}`;

async function main() {
  await check("get", "200 hello", async () => text(await send(`${web}/hello`)));
  await check("head", "200  5", async () => {
    const answer = await send(`${web}/hello`, { method: "HEAD" });
    return `${text(answer)} ${answer.headers["content-length"]}`;
  });
  await check("not-found", "404 no such page", async () => text(await send(`${web}/missing`)));
  await check("post", "200 abc length", async () => {
    const answer = await send(`${web}/echo`, { method: "POST", pieces: ["abc"], headers: { "Content-Length": 3 } });
    return `${text(answer)} ${answer.headers["x-framing"]}`;
  });
  await check("upload-chunked", "200 onetwo chunked", async () => {
    const answer = await send(`${web}/echo`, { method: "POST", pieces: ["one", "two"] });
    return `${text(answer)} ${answer.headers["x-framing"]}`;
  });
  await check("chunked-response", "200 onetwothree", async () => text(await send(`${web}/chunked`)));
  await check("large", "200 true", async () => {
    const data = crypto.randomBytes(2000000);
    const answer = await send(`${web}/echo`, { method: "POST", pieces: [data] });
    return `${answer.status} ${answer.body.equals(data)}`;
  });
  await check("keep-alive", "200 true|200 true|200 true", async () => {
    await send(`${web}/hello`);
    const found = [];
    for (const path of ["hello", "chunked", "hello"]) {
      const { status, reused } = await send(`${web}/${path}`);
      found.push(`${status} ${reused}`);
    }
    return found.join("|");
  });
  await check("odd-query", "200 a=|^{}[]`\"<>&b=http://c/d", async () => text(await send(`${web}/query?a=|^{}[]\`"<>&b=http://c/d`)));
  await check("unbound", "502 true|200 hello true", async () => {
    const answer = await send("http://nobody/");
    const again = await send(`${web}/hello`);
    return `${answer.status} ${(answer.headers["l5d-err"] || "").includes("RT-E101")}|${text(again)} ${again.reused}`;
  });
  await check("connect-unbound", "502 true", async () => {
    const answer = await connect("nobody:443");
    return `${answer.statusCode} ${(answer.headers["l5d-err"] || "").includes("RT-E101")}`;
  });
  await check("connect-port", "403 true", async () => {
    const answer = await connect("web:8443");
    return `${answer.statusCode} ${(answer.headers["l5d-err"] || "").includes("RT-E125")}`;
  });
  await check("https", "200 hello", () => tunnelled("web:443", "/hello"));
  agent.destroy();
}

main();
