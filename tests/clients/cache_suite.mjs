// The public cache test suite (the package http-cache-tests) from the outside: its origin, and its cases with a verdict
// on each.
//
//   node cache_suite.mjs FOLDER origin            serves until standard input ends; prints its port
//   node cache_suite.mjs FOLDER run BASE [ID...]  plays all cases, or these and what they stand on, against the cache
//                                                 at BASE; prints one line of JSON for each
//
// FOLDER is where npm has installed the packages. The suite's own command line is not used, because it prints raw
// results only: which of them count, and what follows from the cases they depend on, is left to its pages for browsers.
import { createRequire } from 'node:module'
import net from 'node:net'
import { resolve } from 'node:path'
import { pathToFileURL } from 'node:url'

const [folder, what, base, ...only] = process.argv.slice(2)
const inSuite = path => import(pathToFileURL(resolve(folder, 'node_modules/http-cache-tests', path)).href)

/** The suite's server listens on every address and on a port from its settings: here on loopback, on any free one. */
async function origin () {
  const listen = net.Server.prototype.listen
  net.Server.prototype.listen = function () { return listen.call(this, { host: '127.0.0.1', port: 0 }) }
  const log = console.log
  console.log = line => {
    const port = /^Listening on .*:(\d+)\//.exec(line)
    if (port) log(port[1])
  }
  process.env.npm_config_protocol = 'http'
  process.env.npm_config_port = '0'
  process.env.npm_config_pidfile = '/dev/null'
  // Whoever started it may die without a word; then this goes too.
  process.stdin.resume().on('end', () => process.exit(0))
  await inSuite('server/server.mjs')
}

/** The groups of cases that a shared cache is asked. Surrogate-Control, which no RFC knows, is not among them. */
async function groups () {
  const all = (await inSuite('tests/index.mjs')).default
  const asked = group => ({ ...group, tests: group.tests.filter(one => !one.browser_only) })
  return all.map(asked).filter(group => group.tests.length > 0)
}

/** These cases and, because a verdict hangs on them, all that they depend on. */
function withWhatTheyStandOn (ids, cases) {
  const wanted = new Set()
  const add = id => {
    if (wanted.has(id)) return
    wanted.add(id)
    for (const other of cases.get(id)?.depends_on ?? []) add(other)
  }
  ids.forEach(add)
  return wanted
}

/** pass, fail, setup (the case could not be put), or dependency (a case that this one builds on did not pass). */
function verdict (id, cases, results) {
  const result = results[id]
  if (result === undefined) return 'setup'
  const standing = (cases.get(id).depends_on ?? []).every(other => verdict(other, cases, results) === 'pass')
  if (!standing) return 'dependency'
  if (result === true) return 'pass'
  return result[0] === 'Assertion' ? 'fail' : 'setup'
}

async function run () {
  const fetch = createRequire(resolve(folder, 'package.json'))('node-fetch')
  const { runTests, getResults } = await inSuite('client/runner.mjs')
  const all = await groups()
  const cases = new Map(all.flatMap(group => group.tests.map(one => [one.id, one])))
  const wanted = only.length > 0 ? withWhatTheyStandOn(only, cases) : new Set(cases.keys())
  const played = all.map(group => ({ ...group, tests: group.tests.filter(one => wanted.has(one.id)) }))
  // All at once: a case waits for whole seconds, and none knows of another.
  setTimeout(() => {
    console.error('the cases are not through after two minutes')
    process.exit(1)
  }, 120_000).unref()
  await runTests(played, fetch, false, base, cases.size)
  const results = getResults()
  for (const group of played) {
    for (const { id, kind = 'required' } of group.tests) {
      const said = results[id] === true ? '' : String(results[id]?.[1] ?? 'never played')
      console.log(JSON.stringify({ group: group.name, id, kind, verdict: verdict(id, cases, results), said }))
    }
  }
}

await { origin, run }[what]()
