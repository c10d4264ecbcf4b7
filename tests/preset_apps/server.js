// A Node server on PORT, which is a number or the path of a socket: says who asks and who answers, as JSON. Its first argument is its
// keep-alive in milliseconds. `?ms=N` has the answer wait so long.
const http = require('node:http')

const server = http.createServer((request, response) => {
  let body = ''
  request.on('data', (piece) => { body += piece })
  request.on('end', () => {
    const client = request.headers['x-forwarded-for'] ?? null
    const facts = { pid: process.pid, parent: process.ppid, client, scheme: request.headers['x-forwarded-proto'], body }
    response.setHeader('content-type', 'application/json')
    const ms = new URL(request.url, 'http://x').searchParams.get('ms') ?? 0
    setTimeout(() => response.end(JSON.stringify(facts)), Number(ms))
  })
})
if (process.argv[2]) server.keepAliveTimeout = Number(process.argv[2])
setTimeout(() => server.listen(process.env.PORT, process.env.HOST), 1000 * Number(process.env.BOOT_DELAY ?? 0))
