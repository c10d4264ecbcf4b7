"""The application of the FastAPI test: JSON, file upload, a streamed answer and a WebSocket."""

import asyncio
import hashlib
import os

from fastapi import FastAPI, Request, UploadFile, WebSocket, WebSocketDisconnect
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

app = FastAPI()


class Item(BaseModel):
    name: str
    price: float


@app.get("/health")
async def health():
    return {"status": "ok"}


@app.post("/spin")
async def spin():
    """Work that never ends and lets nobody else on."""
    while True:
        pass


@app.get("/who")
async def who():
    return {"pid": os.getpid(), "slot": os.environ.get("WORKER_SLOT")}


@app.get("/client")
async def client(request: Request):
    """What uvicorn makes of the forwarded headers."""
    return {
        "host": request.client.host if request.client else None,
        "scheme": request.url.scheme,
        "url": str(request.url),
    }


@app.get("/items/{item_id}")
async def read_item(item_id: int, q: str | None = None):
    return {"item_id": item_id, "q": q}


@app.post("/items")
async def create_item(item: Item):
    return {**item.model_dump(), "total": round(item.price * 1.1, 2)}


@app.post("/slow")
async def slow(item: Item, ms: int):
    await asyncio.sleep(ms / 1000)
    return item


@app.post("/upload")
async def upload(file: UploadFile):
    body = await file.read()
    return {"name": file.filename, "size": len(body), "sha256": hashlib.sha256(body).hexdigest()}


@app.get("/stream")
async def stream(n: int = 10, ms: int = 20):
    async def lines():
        for number in range(n):
            yield f"line {number}\n"
            await asyncio.sleep(ms / 1000)

    return StreamingResponse(lines(), media_type="text/plain")


@app.websocket("/ws")
async def echo(socket: WebSocket):
    await socket.accept()
    try:
        while True:
            message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            if message.get("text") is not None:
                await socket.send_text(message["text"])
            elif message.get("bytes") is not None:
                await socket.send_bytes(message["bytes"])
    except WebSocketDisconnect:
        pass
