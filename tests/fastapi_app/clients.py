"""httpx and websockets against an edge: clients.py PLAIN-PORT H2C-PORT TLS-PORT CA-FILE

Ends with status 0 and the line "all served", or with the traceback of what was not.
"""

import asyncio
import hashlib
import ssl
import sys
import time

import httpx
import websockets

PLAIN, H2C, TLS = (int(port) for port in sys.argv[1:4])
CA = sys.argv[4]
HOST = "localhost"


def context():
    """A new one each time: httpx writes the protocols it wants into the one it is given."""
    return ssl.create_default_context(cafile=CA)


async def http(name, client, version):
    answer = await client.get("/items/1", params={"q": "ä&=+ %"})
    assert answer.http_version == version, (name, answer.http_version)
    assert answer.json() == {"item_id": 1, "q": "ä&=+ %"}, (name, answer.text)

    answer = await client.post("/items", json={"name": "x", "price": 2})
    assert answer.json() == {"name": "x", "price": 2.0, "total": 2.2}, (name, answer.text)
    answer = await client.post("/items", json={"name": "x"})
    assert answer.status_code == 422, (name, answer.status_code)

    body = bytes(range(256)) * 12_000
    answer = await client.post("/upload", files={"file": ("big.bin", body)})
    assert answer.json()["sha256"] == hashlib.sha256(body).hexdigest(), (name, answer.text)

    started, lines, first = time.monotonic(), [], None
    async with client.stream("GET", "/stream", params={"n": 5, "ms": 100}) as answer:
        async for line in answer.aiter_lines():
            first = first or time.monotonic() - started
            lines.append(line)
    assert lines == [f"line {number}" for number in range(5)], (name, lines)
    assert first < 0.3, (name, "the first line was held", first)

    seen = set()
    for answer in await asyncio.gather(*(client.get("/who") for _ in range(40))):
        seen.add(answer.json()["slot"])
    assert seen == {"0", "1", "2", "3"}, (name, "not every worker serves", seen)


async def websocket(url, **options):
    async with websockets.connect(url, proxy=None, **options) as socket:
        for message in ["", "hello", "x" * 100_000, b"", bytes(range(256)) * 100]:
            await socket.send(message)
            assert await socket.recv() == message, url
        await asyncio.wait_for(await socket.ping(), 5)


async def main():
    plain = {"base_url": f"http://{HOST}:{PLAIN}"}
    h2c = {"base_url": f"http://{HOST}:{H2C}", "http1": False, "http2": True}
    tls = {"base_url": f"https://{HOST}:{TLS}"}
    for name, options, version in [
        ("h1", plain, "HTTP/1.1"),
        ("h2c", h2c, "HTTP/2"),
        ("h1 on TLS", {**tls, "verify": context()}, "HTTP/1.1"),
        ("h2 on TLS", {**tls, "verify": context(), "http2": True}, "HTTP/2"),
    ]:
        async with httpx.AsyncClient(**options, trust_env=False, timeout=20) as client:
            await http(name, client, version)
    await websocket(f"ws://{HOST}:{PLAIN}/ws")
    await websocket(f"wss://{HOST}:{TLS}/ws", ssl=context())
    print("all served")


asyncio.run(main())
