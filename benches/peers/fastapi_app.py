"""The FastAPI script that people run today: one JSON file a message, no fsync, then 200."""

import json
import os
import uuid
from pathlib import Path

from fastapi import FastAPI, Request, Response

FOLDER = Path(os.environ["PEER_DATA"])
SECRET = os.environ["PEER_SECRET"]

app = FastAPI()


@app.post("/telegram-webhook")
async def webhook(request: Request) -> Response:
    if request.headers.get("x-telegram-bot-api-secret-token") != SECRET:
        return Response(status_code=401)
    body = await request.body()
    update = json.loads(body)
    (FOLDER / f"telegram_{update['update_id']}_{uuid.uuid4().hex}.json").write_bytes(body)
    return Response(status_code=200)
