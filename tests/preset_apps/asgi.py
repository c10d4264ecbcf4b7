"""An ASGI application without a framework: says who asks and who answers, as JSON. Its start takes BOOT_DELAY seconds."""

import json
import os
import time

time.sleep(float(os.environ.get("BOOT_DELAY", "0")))


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    client = scope.get("client")
    facts = {"pid": os.getpid(), "parent": os.getppid(), "client": client and client[0], "scheme": scope["scheme"], "body": body.decode()}
    answer = json.dumps(facts).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(len(answer)).encode())]})
    await send({"type": "http.response.body", "body": answer})
