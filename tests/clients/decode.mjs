// What the front door has coded, decoded by Node: zlib's streams over HTTP/1.1 and HTTP/2, and fetch by itself.
//
//     node decode.mjs http://HOST:PORT https://HOST:PORT PATH    asks for PATH in each coding at both addresses
//
// Each must be what comes without a coding. A Node without zstd says so in what it prints.
import { createHash } from 'node:crypto'
import http from 'node:http'
import http2 from 'node:http2'
import zlib from 'node:zlib'

const [plain, secure, path] = process.argv.slice(2)
const DECODE = { gzip: zlib.gunzipSync, br: zlib.brotliDecompressSync, deflate: zlib.inflateSync, zstd: zlib.zstdDecompressSync }
// Certificates are the tests' own.
process.env.NODE_TLS_REJECT_UNAUTHORIZED = '0'

const hash = (body) => createHash('sha256').update(body).digest('hex')

function collect(stream, done) {
  const parts = []
  stream.on('data', (part) => parts.push(part))
  stream.on('end', () => done(Buffer.concat(parts)))
}

function overHttp1(coding) {
  return new Promise((resolve, reject) => {
    http.get(plain + path, { headers: { 'accept-encoding': coding } }, (answer) => {
      answer.on('aborted', () => reject(new Error(`${coding}: cut short`)))
      collect(answer, (body) => resolve({ coding: answer.headers['content-encoding'], body }))
    }).on('error', reject)
  })
}

function overHttp2(coding) {
  return new Promise((resolve, reject) => {
    const session = http2.connect(secure, { rejectUnauthorized: false })
    session.on('error', reject)
    const stream = session.request({ ':path': path, 'accept-encoding': coding })
    let got
    stream.on('response', (head) => { got = head['content-encoding'] })
    stream.on('error', reject)
    collect(stream, (body) => { session.close(); resolve({ coding: got, body }) })
  })
}

async function byItself(address) {
  const answer = await fetch(address + path)
  return { coding: answer.headers.get('content-encoding'), body: Buffer.from(await answer.arrayBuffer()) }
}

function expect(what, got, wanted) {
  if (got !== wanted) throw new Error(`${what}: got ${got}, wanted ${wanted}`)
}

const wanted = hash((await overHttp1('identity')).body)
const done = []
for (const [coding, decode] of Object.entries(DECODE)) {
  if (!decode) {
    done.push(`no ${coding}`)
    continue
  }
  for (const ask of [overHttp1, overHttp2]) {
    const answer = await ask(coding)
    expect(`${ask.name} ${coding}: the coding`, answer.coding, coding)
    expect(`${ask.name} ${coding}: the content`, hash(decode(answer.body)), wanted)
  }
  done.push(coding)
}
for (const address of [plain, secure]) {
  const answer = await byItself(address)
  expect(`fetch from ${address}: is coded`, answer.coding !== null, true)
  expect(`fetch from ${address}: the content`, hash(answer.body), wanted)
}
console.log(done.join(', '))
