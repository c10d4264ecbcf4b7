"""A WSGI application: says who asks and who answers, as JSON. Its start takes BOOT_DELAY seconds."""

import json
import os
import time

time.sleep(float(os.environ.get("BOOT_DELAY", "0")))


def app(environ, start_response):
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)).decode()
    facts = {"pid": os.getpid(), "parent": os.getppid(), "client": environ.get("REMOTE_ADDR"), "scheme": environ["wsgi.url_scheme"], "body": body}
    answer = json.dumps(facts).encode()
    start_response("200 OK", [("content-type", "application/json"), ("content-length", str(len(answer)))])
    return [answer]
